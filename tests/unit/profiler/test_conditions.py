"""What the machine did: read where the system tells, None where it does not, marked where it was slowed down."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.facts.conditions import ConditionsWatch, stall_seconds


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_system_that_tells_nothing_leaves_nothing_but_the_time(tmp_path: Path) -> None:
    with ConditionsWatch(tmp_path) as watch:
        pass
    found = watch.conditions()
    assert found.seconds > 0
    assert (found.frequency_hz, found.temperature_celsius, found.thermal_throttles) == (None, None, None)
    assert (found.memory_stall_seconds, found.battery_percent, found.throttled) == (None, None, None)


def test_clock_temperature_and_battery_are_read(tmp_path: Path) -> None:
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1800000\n")
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "2000000\n")
    _write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "61500\n")
    _write(tmp_path, "sys/class/power_supply/BAT0/type", "Battery\n")
    _write(tmp_path, "sys/class/power_supply/BAT0/capacity", "44\n")
    with ConditionsWatch(tmp_path) as watch:
        pass
    found = watch.conditions()
    assert (found.frequency_hz, found.frequency_maximum_hz) == (1.8e9, 2e9)
    assert (found.temperature_celsius, found.battery_percent) == (61.5, 44.0)
    assert found.throttled is False and found.throttled_because is None


@pytest.mark.parametrize(
    ("name", "before", "after", "because"),
    [
        ("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "3", "5", "2 thermal throttles"),
        ("proc/pressure/memory", "some avg10=0 total=0", "some avg10=9 total=90000000", "for memory"),
        ("proc/pressure/cpu", "some avg10=0 total=0", "some avg10=9 total=90000000", "other work"),
    ],
)
def test_a_slowed_measurement_is_marked_with_its_reason(
    name: str, before: str, after: str, because: str, tmp_path: Path
) -> None:
    _write(tmp_path, name, before)
    with ConditionsWatch(tmp_path) as watch:
        _write(tmp_path, name, after)
    found = watch.conditions()
    assert found.throttled is True and because in (found.throttled_because or "")


def test_a_clock_far_below_its_maximum_is_marked(tmp_path: Path) -> None:
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "600000")
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "2000000")
    with ConditionsWatch(tmp_path) as watch:
        pass
    assert "clock at 30%" in (watch.conditions().throttled_because or "")


@pytest.mark.parametrize("text", ["", "full avg10=0 total=7", "some total=many", "\xff"])
def test_pressure_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    _write(tmp_path, "memory", text)
    assert stall_seconds(tmp_path / "memory") is None
