"""What the system allows this process, and what holds a training to its promise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from device_profiles.contract import LimitKind
from device_profiles.promise import PREPARING_BYTES
from device_profiles.sizes import MEGABYTE
from edge_runtime.device.doctor.row import Row
from edge_runtime.device.limits.cgroups import create_group
from edge_runtime.device.limits.control_groups import cpu_quota, groups, memory_limit, read_text
from edge_runtime.device.machine.readings import data_limit, huge_pages

_TRIED_BYTES = 64 * MEGABYTE
_RLIMIT = "RLIMIT_DATA, which counts what a training asks for and not only what it touches"


def enforcement() -> LimitKind:
    """What holds a training of this process to its limit: tried with a control group, which is removed again."""
    group = create_group(_TRIED_BYTES)
    if group is None:
        return "rlimit"
    group.remove()
    return group.kind


def rule_rows(root: Path, enforced_by: Callable[[], LimitKind] = enforcement) -> Iterator[Row]:
    """Rows of limits as seen below `root`; `enforced_by` tries what may be made."""
    yield _limits(root)
    yield _enforcement(root, enforced_by())
    yield _pressure(root)
    yield _huge_pages(root)


def _limits(root: Path) -> Row:
    found = []
    outside = memory_limit(root)
    if outside is not None:
        found.append((outside.size_bytes, f"{outside.size_bytes // MEGABYTE} MB of memory ({outside.kind})"))
    asked = data_limit()
    if asked is not None:
        found.append((asked, f"{asked // MEGABYTE} MB of data (rlimit)"))
    quota = cpu_quota(root)
    texts = [text for _, text in found] + ([] if quota is None else [f"{quota:g} processors"])
    if any(size < PREPARING_BYTES for size, _ in found):
        remedy = f"raise it: {PREPARING_BYTES // MEGABYTE} MB are needed before a training starts"
        return Row("limits here", ", ".join(texts), "missing", remedy, stops=True)
    return Row("limits here", ", ".join(texts) or "none")


def _enforcement(root: Path, kind: LimitKind) -> Row:
    if kind != "rlimit":
        return Row("promise kept by", f"a control group ({kind})")
    if not any(folder.is_dir() for group in groups("memory", root) for folder in group.folders):
        return Row("promise kept by", _RLIMIT, "note", "no control groups are mounted here")
    if _memory_is_off(root):
        remedy = "add cgroup_enable=memory to the kernel's command line (cmdline.txt of a Raspberry Pi) and start again"
        return Row("promise kept by", _RLIMIT, "note", remedy)
    start = "as root" if not os.path.isdir(root / "run/systemd/system") else "with systemd-run --user --scope"
    return Row("promise kept by", _RLIMIT, "note", f"for a control group, start the command {start}")


def _memory_is_off(root: Path) -> bool:
    """Whether the kernel was told to count no memory, as boards with little of it are."""
    for line in read_text(root / "proc/cgroups").splitlines():
        fields = line.split()
        if fields[:1] == ["memory"]:
            return fields[-1] == "0"
    controllers = read_text(root / "sys/fs/cgroup/cgroup.controllers").split()
    return bool(controllers) and "memory" not in controllers


def _pressure(root: Path) -> Row:
    if read_text(root / "proc/pressure/memory"):
        return Row("memory pressure", "the kernel tells (PSI)")
    return Row(
        "memory pressure",
        "the kernel does not tell",
        "note",
        "profl-edge join pauses where memory is scarce only with it: add psi=1 to the kernel's command line",
    )


def _huge_pages(root: Path) -> Row:
    setting = huge_pages(root)
    if setting != "always":
        return Row("huge pages", "none" if setting is None else setting)
    remedy = "a process may take more than it asks for: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
    return Row("huge pages", setting, "note", remedy)
