"""The default number of threads, on machines made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.device.commands.options import thread_count
from edge_runtime.device.machine.cores import usable_cores


def _machine(root: Path, siblings: dict[int, str], *, name: str = "core_cpus_list") -> Path:
    for processor, text in siblings.items():
        folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        folder.mkdir(parents=True)
        (folder / name).write_text(text + "\n")
    return root


def _group(root: Path, line: str, files: dict[str, str]) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(line + "\n")
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_siblings_count_once(tmp_path: Path, name: str) -> None:
    root = _machine(
        tmp_path, {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}, name=name
    )
    assert usable_cores(root=root, logical=range(8)) == 4
    assert usable_cores(root=root, logical=[0, 4]) == 1
    assert usable_cores(root=root, logical=[0, 5]) == 2
    assert usable_cores(root=root, logical=[3]) == 1


def test_ranges_are_read(tmp_path: Path) -> None:
    root = _machine(tmp_path, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"})
    assert usable_cores(root=root, logical=range(4)) == 2


@pytest.mark.parametrize("text", ["", "nonsense", "9", "1-"])
def test_where_siblings_are_not_known_every_processor_counts(tmp_path: Path, text: str) -> None:
    root = _machine(tmp_path, {0: text, 1: text})
    assert usable_cores(root=root, logical=range(6)) == 6


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_the_quota_of_a_group_of_version_2_or_of_its_parent_holds(tmp_path: Path, quota: str, expected: int) -> None:
    _group(tmp_path, "0::/user/task", {"sys/fs/cgroup/user/task/cpu.max": "max 100000"})
    _group(tmp_path, "0::/user/task", {"sys/fs/cgroup/user/cpu.max": quota})
    assert usable_cores(root=tmp_path, logical=range(8)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("10000", 1)])
def test_the_quota_of_a_group_of_version_1_holds(tmp_path: Path, quota: str, expected: int) -> None:
    folder = "sys/fs/cgroup/cpu,cpuacct/task"
    _group(
        tmp_path,
        "3:cpu,cpuacct:/task",
        {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000"},
    )
    assert usable_cores(root=tmp_path, logical=range(8)) == expected


def _speeds(root: Path, speeds: list[int], *, name: str = "cpu_capacity") -> Path:
    for processor, speed in enumerate(speeds):
        file = root / f"sys/devices/system/cpu/cpu{processor}/{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{speed}\n")
    return root


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([414] * 4 + [1024] * 4, 4),  # four A55 and four A76
        ([485] * 4 + [1024] * 2, 2),  # four A53 and two A72
        ([300] * 4 + [800] * 3 + [1024], 4),  # a phone: the middle ones help
        ([1024] * 4, 4),
    ],
)
def test_little_cores_do_not_count(tmp_path: Path, speeds: list[int], expected: int) -> None:
    root = _speeds(tmp_path, speeds)
    assert usable_cores(root=root, logical=range(len(speeds))) == expected
    assert usable_cores(root=root, logical=[0, 1]) == 2  # where only those may be used, they are the fastest


def test_without_capacities_clocks_tell_the_cores_apart(tmp_path: Path) -> None:
    clocks = [5_000_000] * 4 + [3_800_000] * 4 + [1_200_000] * 2
    root = _speeds(tmp_path, clocks, name="cpufreq/cpuinfo_max_freq")
    assert usable_cores(root=root, logical=range(10)) == 8


def test_the_option_wins_over_the_machine() -> None:
    assert thread_count(7) == 7
    assert thread_count(None) == usable_cores() >= 1
