"""Limits of the control groups that this process lives in, as seen below a root (`/`; another one in tests)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from device_profiles.contract import LimitKind

_UNLIMITED_BYTES = 1 << 62


def inherited_limit(root: Path = Path("/")) -> tuple[int, LimitKind] | None:
    """The lowest memory limit of the control groups this process lives in, and their version; None without one."""
    for controllers, group in _own_groups(root):
        if "memory" in controllers:
            found = _lowest(root / "sys/fs/cgroup/memory", group, "memory.limit_in_bytes")
            return None if found is None else (found, "cgroup-v1")
        if controllers == [""]:
            found = _lowest(root / "sys/fs/cgroup", group, "memory.max")
            if found is not None:
                return found, "cgroup-v2"
    return None


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that the control groups allow; None where they do not limit it."""
    quotas = []
    for controllers, group in _own_groups(root):
        if controllers == [""]:
            for folder in _upwards(root / "sys/fs/cgroup", group):
                words = read_text(folder / "cpu.max").split()
                quotas += _share(words[:1], words[1:2])
        elif "cpu" in controllers:
            for mount in ("cpu", "cpu,cpuacct"):
                for folder in _upwards(root / "sys/fs/cgroup" / mount, group):
                    quota = read_text(folder / "cpu.cfs_quota_us").split()[:1]
                    quotas += _share(quota, read_text(folder / "cpu.cfs_period_us").split()[:1])
    return min(quotas, default=None)


def read_text(path: Path) -> str:
    """Content of a small file of the system, empty where it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _share(quota: list[str], period: list[str]) -> list[float]:
    if quota and period and quota[0].isdigit() and period[0].isdigit() and int(period[0]) > 0 and int(quota[0]) > 0:
        return [int(quota[0]) / int(period[0])]
    return []


def _own_groups(root: Path) -> Iterator[tuple[list[str], str]]:
    for line in read_text(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            yield fields[1].split(","), fields[2]


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's folder and its parents: a group is held by the limits of its parents too.

    In a container the path of `/proc/self/cgroup` may be the host's, which is not mounted; the mount itself is then
    the container's own group.
    """
    folder = mount / group.lstrip("/")
    for parent in (folder, *folder.parents):
        if not parent.is_relative_to(mount):
            return
        yield parent


def _lowest(mount: Path, group: str, name: str) -> int | None:
    """Version 1 writes no limit as a number near 2**63."""
    limits = []
    for folder in _upwards(mount, group):
        text = read_text(folder / name).strip()
        if text.isdigit() and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return min(limits, default=None)
