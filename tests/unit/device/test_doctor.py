"""`profl-edge doctor`: what it makes of machines, from fake roots, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.device.cli import main
from edge_runtime.device.doctor.asked import data_row, limit_row
from edge_runtime.device.doctor.hardware import hardware_rows
from edge_runtime.device.doctor.row import Row
from edge_runtime.device.doctor.rules import rule_rows
from edge_runtime.device.doctor.software import software_rows
from edge_runtime.device.doctor.storage import folder_row

_MEMORY = "MemTotal: 948304 kB\nMemAvailable: {} kB\nSwapTotal: {} kB\n"


def _root(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _of(rows: Iterable[Row], name: str) -> Row:
    return next(row for row in rows if row.name == name)


def _rules(root: Path) -> list[Row]:
    return list(rule_rows(root, lambda: "rlimit"))


@pytest.mark.parametrize(
    ("available", "state", "stops"), [(700000, "ok", False), (50000, "note", False), (20000, "missing", True)]
)
def test_memory_is_ok_little_or_too_little(available: int, state: str, stops: bool, tmp_path: Path) -> None:
    root = _root(tmp_path, {"proc/meminfo": _MEMORY.format(available, 0)})
    row = _of(hardware_rows(root), "memory")
    assert (row.state, row.stops) == (state, stops)
    assert row.found == f"{available // 1024} of 926 MB available"


def test_a_restricted_proc_is_said_and_nothing_is_made_up(tmp_path: Path) -> None:
    row = _of(hardware_rows(tmp_path), "memory")
    assert row.state == "note" and row.remedy == "mount /proc"
    assert _of(hardware_rows(tmp_path), "processor").found == "does not say its name"


@pytest.mark.parametrize("file", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_big_and_little_cores_are_told_apart(file: str, tmp_path: Path) -> None:
    own = sorted(os.sched_getaffinity(0))
    speeds = {number: 446 for number in range(max(own) + 1)} | {max(own) + 1: 1024}
    root = _root(tmp_path, {f"sys/devices/system/cpu/cpu{n}/{file}": f"{speed}\n" for n, speed in speeds.items()})
    assert f"1 fast and {len(speeds) - 1} slow cores" in _of(hardware_rows(root), "threads").found


def test_cores_of_half_the_speed_are_slow_and_no_threads_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    names = {0: 700, 1: 500, 2: 1024}
    root = _root(tmp_path, {f"sys/devices/system/cpu/cpu{n}/cpu_capacity": str(speed) for n, speed in names.items()})
    row = _of(hardware_rows(root), "threads")
    assert (row.state, row.found) == ("ok", "2 by default; 2 fast and 1 slow cores")


@pytest.mark.parametrize(
    ("swaps", "state", "found"), [("/dev/zram0 partition 1 0 5", "ok", "in zram"), ("/swapfile file 1 0 5", "note", "")]
)
def test_swap_on_a_card_is_noted_and_zram_named(swaps: str, state: str, found: str, tmp_path: Path) -> None:
    files = {
        "proc/meminfo": _MEMORY.format(700000, 102400),
        "proc/swaps": f"Filename Type Size Used Priority\n{swaps}\n",
    }
    row = _of(hardware_rows(_root(tmp_path, files)), "swap")
    assert row.state == state and row.found.startswith("100 MB") and found in row.found


def test_sensors_and_a_battery_that_discharges(tmp_path: Path) -> None:
    supply = "sys/class/power_supply/BAT0"
    files = {f"{supply}/type": "Battery\n", f"{supply}/capacity": "41\n", f"{supply}/status": "Discharging\n"}
    rows = list(hardware_rows(_root(tmp_path, files | {"sys/class/thermal/thermal_zone0/temp": "48312\n"})))
    assert _of(rows, "temperature").found == "1 sensor, up to 48 degrees Celsius"
    assert _of(rows, "power").found == "on battery at 41 %" and _of(rows, "power").state == "note"


def test_a_limit_of_the_container_below_what_a_command_takes_stops_it(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": str(20 << 20)}
    row = _of(_rules(_root(tmp_path, files)), "limits here")
    assert row.stops and "20 MB of memory (cgroup-v2)" in row.found and "32 MB" in row.remedy


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        ({}, "no control groups are mounted here"),
        ({"proc/cgroups": "#name hierarchy num enabled\nmemory\t0\t80\t0\n"}, "cgroup_enable=memory"),
        ({"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"}, "cgroup_enable=memory"),
        (
            {"sys/fs/cgroup/cgroup.controllers": "cpu memory\n", "run/systemd/system/x": ""},
            "systemd-run --user --scope",
        ),
        ({"sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}, "as root"),
    ],
)
def test_without_a_control_group_it_is_said_why(files: dict[str, str], remedy: str, tmp_path: Path) -> None:
    mounted = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.procs": ""} if files else {}
    row = _of(_rules(_root(tmp_path, mounted | files)), "promise kept by")
    assert row.state == "note" and row.found.startswith("RLIMIT_DATA") and remedy in row.remedy


def test_a_control_group_that_can_be_made_keeps_the_promise(tmp_path: Path) -> None:
    row = _of(rule_rows(tmp_path, lambda: "cgroup-v2"), "promise kept by")
    assert (row.state, row.found) == ("ok", "a control group (cgroup-v2)")


@pytest.mark.parametrize(("text", "state"), [("[always] madvise never", "note"), ("always [madvise] never", "ok")])
def test_huge_pages_that_are_always_given_are_noted(text: str, state: str, tmp_path: Path) -> None:
    root = _root(
        tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": text, "proc/pressure/memory": "some total=1\n"}
    )
    assert _of(_rules(root), "huge pages").state == state
    assert _of(_rules(root), "memory pressure").state == "ok"


def _software(installed: set[str], instruction_set: Callable[[], str]) -> list[Row]:
    return list(software_rows(is_installed=installed.__contains__, instruction_set=instruction_set))


def test_a_native_module_that_does_not_load_stops_a_training() -> None:
    def fails() -> str:
        raise ImportError("libm.so.6: version `GLIBC_2.38' not found")

    row = _of(_software(set(), fails), "kernels")
    assert row.stops and "GLIBC_2.38" in row.found and "wheel" in row.remedy


def test_packages_that_are_missing_are_named_with_what_needs_them() -> None:
    row = _of(_software(set(), lambda: "avx2"), "data readers")
    assert row.state == "note" and row.remedy.endswith("pip install 'pillow>=10'")
    assert _of(_software({"PIL"}, lambda: "avx2"), "data readers").state == "ok"
    assert _of(_software(set(), lambda: "baseline"), "kernels").state == "note"


@pytest.mark.parametrize(
    ("limit", "files", "state"),
    [
        (16 << 20, {}, "missing"),
        (128 << 20, {"proc/meminfo": _MEMORY.format(700000, 0)}, "ok"),
        (128 << 20, {"proc/meminfo": _MEMORY.format(100000, 0)}, "note"),
        (128 << 20, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(64 << 20)}, "note"),
    ],
)
def test_a_limit_is_held_against_what_there_is(limit: int, files: dict[str, str], state: str, tmp_path: Path) -> None:
    row = limit_row(limit, _root(tmp_path, files))
    assert (row.state, row.stops) == (state, state == "missing")


def test_a_data_set_is_described_or_its_error_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((6, 4, 5), np.uint8), labels=np.arange(6) % 3)
    row = data_row(f"npz:{tmp_path}/a.npz")
    assert row.state == "ok" and row.found.endswith("6 examples of 1x4x5, 3 classes")
    absent = data_row(f"npz:{tmp_path}/b.npz")
    assert absent.stops and "No such file" in absent.found


def test_a_folder_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    row = folder_row("cache", tmp_path / "a" / "b", "give another")
    assert f"MB free in {tmp_path}/a/b" in row.found


def test_the_command_prints_one_json_object_and_its_status_says_whether_training_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--json", "--limit", "128MB"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["works"] is True
    assert {row["state"] for row in answer["rows"]} <= {"ok", "note"}
    assert main(["doctor", "--data", "npz:/absent.npz"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "training cannot work here: see what is missing"
    assert any(line.startswith("missing  data") and "/absent.npz" in line for line in printed)


def test_it_needs_no_numpy() -> None:
    code = (
        "import sys\nsys.modules['numpy'] = None\nfrom edge_runtime.device.cli import main\nsys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
