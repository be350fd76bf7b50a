"""When a device may train, by a system of its own below a folder; and when its memory is scarce."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from device_profiles.errors import UsageError
from edge_runtime.device.federation.permission import Permission, not_charging, parse_conditions, parse_hours, too_warm
from edge_runtime.device.federation.pressure import MemoryPressure


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


_SUPPLY = "sys/class/power_supply"


@pytest.mark.parametrize(
    ("files", "charging"),
    [
        ({}, True),  # a device without a battery
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Charging"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Full"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "AC/type": "Mains", "AC/online": "0"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Unknown", "usb/type": "USB", "usb/online": "1"}, True),
        ({"mouse/type": "Battery", "mouse/scope": "Device", "mouse/status": "Discharging"}, True),
    ],
)
def test_a_device_charges_where_power_comes_from_outside(tmp_path: Path, files: dict[str, str], charging: bool) -> None:
    _write(tmp_path, {f"{_SUPPLY}/{name}": text for name, text in files.items()})
    assert (not_charging(tmp_path) is None) is charging


def test_a_device_is_too_warm_where_one_part_is(tmp_path: Path) -> None:
    zones = "sys/class/thermal/thermal_zone"
    _write(tmp_path, {f"{zones}0/temp": "45000", f"{zones}1/temp": "52000", f"{zones}2/temp": "nothing"})
    assert too_warm(tmp_path) is None
    _write(tmp_path, {f"{zones}1/temp": "71500"})
    assert too_warm(tmp_path) == "72 °C warm"


def test_a_training_goes_on_where_none_would_begin(tmp_path: Path) -> None:
    _write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "67000"})
    permission = Permission(("cool",), root=tmp_path)
    assert permission.refusal() == "67 °C warm"
    assert permission.refusal(training=True) is None


def test_a_device_is_idle_where_only_the_client_uses_its_processors(tmp_path: Path) -> None:
    own = 0.0
    _write(tmp_path, {"proc/stat": "cpu 1000 0 0 9000 0 0 0 0 0 0"})
    permission = Permission(("idle",), own_seconds=lambda: own, root=tmp_path)
    assert permission.refusal() == "not known to be idle yet"
    _write(tmp_path, {"proc/stat": "cpu 1500 0 0 9500 0 0 0 0 0 0"})  # 5 s of 10 s, all by others
    assert permission.refusal() == "others use 50% of the processors"
    own = 4.5
    assert permission.refusal() is None


@pytest.mark.parametrize(
    ("hours", "now", "quiet"),
    [
        ("22:00-07:00", (23, 0), True),
        ("22:00-07:00", (6, 59), True),
        ("22:00-07:00", (7, 0), False),
        ("22:00-07:00", (12, 0), False),
        ("09:30-17:00", (9, 30), True),
        ("09:30-17:00", (17, 0), False),
        ("00:00-24:00", (5, 0), True),
    ],
)
def test_quiet_hours_may_reach_over_midnight(
    monkeypatch: pytest.MonkeyPatch, hours: str, now: tuple[int, int], quiet: bool
) -> None:
    moment = time.struct_time((2026, 6, 1, *now, 0, 0, 152, 0))
    monkeypatch.setattr(time, "localtime", lambda: moment)
    assert (Permission((), hours).refusal() == "quiet hours") is quiet


@pytest.mark.parametrize("text", ["22-7", "25:00-07:00", "22:60-07:00", "", "7:00", "07:00-07:00"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--quiet-hours .*write them as 22:00-07:00"):
        parse_hours(text)


def test_conditions_are_read_in_any_order() -> None:
    assert parse_conditions("cool, idle") == ("idle", "cool")
    with pytest.raises(UsageError, match="'warm' is no condition; give some of idle, charging, cool"):
        parse_conditions("idle,warm")


def _pressure(root: Path, some: float, full: float) -> None:
    _write(
        root,
        {
            "proc/pressure/memory": f"some avg10={some:.2f} avg60=0.00 avg300=0.00 total=1\n"
            f"full avg10={full:.2f} avg60=0.00 avg300=0.00 total=1"
        },
    )


def test_pressure_that_was_high_must_fall_well_below_what_made_it_so(tmp_path: Path) -> None:
    pressure = MemoryPressure(tmp_path)
    assert not pressure.is_high()  # a kernel that does not tell
    _pressure(tmp_path, 39.0, 9.0)
    assert not pressure.is_high()
    _pressure(tmp_path, 12.0, 11.0)
    assert pressure.is_high()
    _pressure(tmp_path, 9.0, 6.0)
    assert pressure.is_high()
    _pressure(tmp_path, 9.0, 4.0)
    assert not pressure.is_high()
    _pressure(tmp_path, 41.0, 0.0)
    assert pressure.is_high()
