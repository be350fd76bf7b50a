"""How many threads are worth starting: the physical cores that this process may use, without the slow ones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edge_runtime.device.limits.control_groups import cpu_quota, read_text
from edge_runtime.device.machine.readings import core_speeds

_CPU_FOLDER = "sys/devices/system/cpu"
_SIBLING_FILES = ("core_cpus_list", "thread_siblings_list")
BIG_SHARE = 0.5
"""Of the speed of the fastest core. All threads of a step have the same share of it and wait for the slowest, so that
four cores of less than half the speed are of no use beside four fast ones. (Their vector units are slower still.)"""


def usable_cores(*, root: Path = Path("/"), logical: Iterable[int] | None = None) -> int:
    """Physical cores of the logical processors in the affinity, but no more than the control groups' quota; at least 1.

    Two threads of one core share its arithmetic units, so that the second one gains a training step nothing. Where the
    system does not say which processors are siblings, each counts. Of cores that differ in speed, as on most ARM boards
    and phones, only the big ones count. `root` and `logical` are others in tests.
    """
    processors = set(_affinity() if logical is None else logical)
    cores = {frozenset(_siblings(root, processor) & processors) for processor in processors}
    big = _big(cores, core_speeds(root))
    quota = cpu_quota(root)
    return max(1, big if quota is None else min(big, int(quota)))


def _big(cores: set[frozenset[int]], speeds: dict[int, float]) -> int:
    own = [max(speeds.get(processor, 0.0) for processor in core) for core in cores if core]
    fastest = max(own, default=0.0)
    return sum(speed >= BIG_SHARE * fastest for speed in own)


def _affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return set(range(os.cpu_count() or 1))


def _siblings(root: Path, processor: int) -> frozenset[int]:
    for name in _SIBLING_FILES:
        numbers = _numbers(read_text(root / _CPU_FOLDER / f"cpu{processor}/topology/{name}"))
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
