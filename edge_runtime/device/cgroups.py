"""Memory control groups of Linux, version 1 and 2: a folder with a limit that the kernel enforces."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from device_profiles.contract import LimitKind

_MOUNT = Path("/sys/fs/cgroup")
_NAME = "profl-edge-"
_REMOVE_ATTEMPTS = 50
_REMOVE_WAIT_SECONDS = 0.02
_numbers = itertools.count()


class MemoryGroup:
    """One control group of our own. Make it with `create_group`, end it with `remove`."""

    def __init__(self, path: Path, kind: LimitKind) -> None:
        self.path = path
        self.kind = kind

    def limit(self, limit_bytes: int) -> None:
        """Set the hard limit, swap included where the kernel counts swap. Raises OSError."""
        if self.kind == "cgroup-v1":
            (self.path / "memory.limit_in_bytes").write_text(str(limit_bytes))
            swap = self.path / "memory.memsw.limit_in_bytes"
        else:
            (self.path / "memory.max").write_text(str(limit_bytes))
            limit_bytes, swap = 0, self.path / "memory.swap.max"
        if swap.exists():
            with suppress(OSError):
                swap.write_text(str(limit_bytes))

    def oom_kills(self) -> int:
        """Processes of this group that the kernel killed at the limit."""
        name = "memory.oom_control" if self.kind == "cgroup-v1" else "memory.events"
        for line in _read(self.path / name).splitlines():
            field, _, value = line.partition(" ")
            if field == "oom_kill":
                return int(value)
        return 0

    def peak_bytes(self) -> int | None:
        """Highest charge of the group (pages of files included), None where the kernel does not tell."""
        name = "memory.max_usage_in_bytes" if self.kind == "cgroup-v1" else "memory.peak"
        text = _read(self.path / name).strip()
        return int(text) if text.isdigit() else None

    def remove(self) -> None:
        """Kill what is left in the group and remove it."""
        for _ in range(_REMOVE_ATTEMPTS):
            for process in _read(self.path / "cgroup.procs").split():
                with suppress(OSError):
                    os.kill(int(process), 9)
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_REMOVE_WAIT_SECONDS)


def create_group(limit_bytes: int) -> MemoryGroup | None:
    """A new group with a limit, below the first control group where we may make one; None where there is none."""
    for parent, kind in _parents():
        _remove_abandoned(parent)
        group = MemoryGroup(parent / f"{_NAME}{os.getpid()}-{next(_numbers)}", kind)
        try:
            group.path.mkdir()
        except OSError:
            continue
        try:
            group.limit(limit_bytes)
            if not os.access(group.path / "cgroup.procs", os.W_OK):
                raise PermissionError
        except OSError:
            with suppress(OSError):
                group.path.rmdir()
            continue
        return group
    return None


def _parents() -> Iterator[tuple[Path, LimitKind]]:
    own = _own_groups()
    version_1 = _MOUNT / "memory"
    if (version_1 / "memory.limit_in_bytes").exists() or "memory" in own:
        yield version_1 / own.get("memory", "").lstrip("/"), "cgroup-v1"
        yield version_1, "cgroup-v1"
    elif (_MOUNT / "cgroup.controllers").exists():
        # A group that holds processes cannot hand its memory controller down: the parents may.
        group = _MOUNT / own.get("", "").lstrip("/")
        for parent in (group, *group.parents):
            if not parent.is_relative_to(_MOUNT):
                return
            if "memory" in _read(parent / "cgroup.subtree_control").split():
                yield parent, "cgroup-v2"


def _own_groups() -> dict[str, str]:
    """Control group of this process per controller; version 2 is the empty name."""
    groups = {}
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _remove_abandoned(parent: Path) -> None:
    """Remove groups whose maker was killed before it could; groups in use refuse to be removed."""
    with suppress(OSError):
        for path in parent.glob(f"{_NAME}*"):
            maker = path.name.removeprefix(_NAME).partition("-")[0]
            if maker.isdigit() and not Path(f"/proc/{maker}").exists():
                with suppress(OSError):
                    path.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
