"""The control groups that this process lives in, as seen below a root (`/`; another one in tests).

Version 1 has a hierarchy for each controller, version 2 one for all; a machine may have both at once (hybrid), with the
memory controller in either. `/proc/self/cgroup` names the groups, and `/proc/self/mountinfo` says where they are
mounted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_profiles.contract import LimitKind

_MOUNT = Path("sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 62
"""Version 1 writes no limit as a number near 2**63."""
_KIND: dict[int, LimitKind] = {1: "cgroup-v1", 2: "cgroup-v2"}
_LIMITS = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}
"""Above `memory.high` a process is slowed down until it hardly moves: for a training that is a limit as well."""
EVENTS: dict[LimitKind, str] = {"cgroup-v1": "memory.oom_control", "cgroup-v2": "memory.events"}
"""The file of a group in which the kernel counts kills at its limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """This process's group of one controller: `folders` are its own and those of its parents, up to the mount."""

    version: int
    folders: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLimit:
    """The lowest limit that this process lives under.

    Attributes:
        size_bytes: the limit.
        kind: version of the control group.
        events: file in which the kernel counts this group's kills at the limit.
    """

    size_bytes: int
    kind: LimitKind
    events: Path


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The lowest memory limit of this process's control groups and all their parents; None without one."""
    found: list[tuple[int, Group]] = []
    for group in groups("memory", root):
        texts = [read_text(folder / name) for folder in group.folders for name in _LIMITS[group.version]]
        if group.version == 1:
            # Parents above a container's own root cannot be seen; the kernel tells the lowest of all.
            texts += _hierarchical_limits(group)
        found += [(int(text), group) for text in map(str.strip, texts) if text.isdigit()]
    limited = [(size, group) for size, group in found if size < _UNLIMITED_BYTES]
    if not limited:
        return None
    size, group = min(limited, key=lambda item: item[0])
    kind = _KIND[group.version]
    return MemoryLimit(size_bytes=size, kind=kind, events=group.folders[0] / EVENTS[kind])


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the control groups and their parents allow; None where they do not limit it."""
    quotas: list[float] = []
    for group in groups("cpu", root):
        for folder in group.folders:
            if group.version == 2:
                words = read_text(folder / "cpu.max").split()
            else:
                words = [read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            quotas += _share(words)
    return min(quotas, default=None)


def groups(controller: str, root: Path = Path("/")) -> Iterator[Group]:
    """This process's groups that may hold `controller` ("memory", "cpu"), version 1 before version 2."""
    own = list(_own_groups(root))
    mounts = list(_mounts(root))
    for controllers, path in own:
        if controller in controllers:
            places = [(at, base) for version, names, at, base in mounts if version == 1 and controller in names]
            places = places or [(root / _MOUNT / name, "/") for name in (",".join(controllers), controller)]
            yield from (Group(version=1, folders=_upwards(at, base, path)) for at, base in dict.fromkeys(places))
    for controllers, path in own:
        if controllers == [""]:
            places = [(at, base) for version, _, at, base in mounts if version == 2]
            places = places or [(root / _MOUNT, "/")]
            yield from (Group(version=2, folders=_upwards(at, base, path)) for at, base in dict.fromkeys(places))


def read_text(path: Path) -> str:
    """Content of a small file of the system, empty where it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _own_groups(root: Path) -> Iterator[tuple[list[str], str]]:
    """Controllers and path of each line of `/proc/self/cgroup`; those of version 2 have the one empty name."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            yield fields[1].split(","), fields[2]


def _mounts(root: Path) -> Iterator[tuple[int, list[str], Path, str]]:
    """Version, controllers, folder and the group that is mounted there, of every mount of control groups."""
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        group, place = (re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field) for field in fields[3:5])
        yield 1 if kind[0] == "cgroup" else 2, kind[-1].split(","), root / place.lstrip("/"), group


def _upwards(mount: Path, mounted: str, group: str) -> tuple[Path, ...]:
    """The group's folder and its parents: a group is held by the limits of its parents too.

    In a container the path of `/proc/self/cgroup` may be the host's, or outside of what is mounted: the mount itself is
    then the container's own group.
    """
    inside = Path(group).is_relative_to(mounted) and ".." not in Path(group).parts
    folder = mount / Path(group).relative_to(mounted) if inside else mount
    if not folder.is_dir():
        folder = mount
    return tuple(parent for parent in (folder, *folder.parents) if parent.is_relative_to(mount))


def _hierarchical_limits(group: Group) -> list[str]:
    lines = [line for folder in group.folders[:1] for line in read_text(folder / "memory.stat").splitlines()]
    return [line.split()[-1] for line in lines if line.startswith("hierarchical_memory_limit ")]


def _share(words: list[str]) -> list[float]:
    """Quota over period; version 2 writes no quota as `max`, version 1 as -1."""
    if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
        return [int(words[0]) / int(words[1])]
    return []
