"""How many threads are worth starting: the physical cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_CPU_FOLDER = "sys/devices/system/cpu"
_SIBLING_FILES = ("core_cpus_list", "thread_siblings_list")


def usable_cores(*, root: Path = Path("/"), logical: Iterable[int] | None = None) -> int:
    """Physical cores of the logical processors in the affinity, but no more than the control groups' quota; at least 1.

    Two threads of one core share its arithmetic units, so that the second one gains a training step nothing. Where the
    system does not say which processors are siblings, each counts. `root` and `logical` are others in tests.
    """
    processors = set(_affinity() if logical is None else logical)
    cores = {frozenset(_siblings(root, processor) & processors) for processor in processors}
    return max(1, min([len(cores), *(int(quota) for quota in _quotas(root))]))


def _affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return set(range(os.cpu_count() or 1))


def _siblings(root: Path, processor: int) -> frozenset[int]:
    for name in _SIBLING_FILES:
        numbers = _numbers(_read(root / _CPU_FOLDER / f"cpu{processor}/topology/{name}"))
        if processor in numbers:
            return numbers
    return frozenset({processor})


def _numbers(text: str) -> frozenset[int]:
    """The numbers of a list such as `0-2,5`; none where it is not one."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            return frozenset()
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time, by every control group of this process and its parents that has a quota."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            for folder in _parents(root / "sys/fs/cgroup", group):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _processors(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in (root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"):
                for folder in _parents(mount, group):
                    yield from _processors(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _parents(mount: Path, group: str) -> Iterator[Path]:
    folder = mount / group.lstrip("/")
    yield folder
    for parent in folder.parents if folder != mount else ():
        yield parent
        if parent == mount:
            return


def _processors(quota: str, period: str) -> Iterator[float]:
    """Version 2 writes no quota as `max`, version 1 as -1."""
    if quota.strip().isdigit() and period.strip().isdigit() and int(period) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
