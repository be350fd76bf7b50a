"""Memory control groups of Linux, version 1 and 2: a folder with a limit that the kernel enforces."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from device_profiles.contract import LimitKind
from edge_runtime.device.limits.control_groups import EVENTS, groups, read_text

_NAME = "profl-edge-"
LEAF = "client"
"""Of a group whose processes start others in groups inside of it."""
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

    @property
    def events(self) -> Path:
        """The file in which the kernel counts kills at the limit, as `oom_kill N`."""
        return self.path / EVENTS[self.kind]

    def oom_kills(self) -> int:
        """Processes of this group that the kernel killed at the limit."""
        for line in read_text(self.events).splitlines():
            field, _, value = line.partition(" ")
            if field == "oom_kill":
                return int(value)
        return 0

    def peak_bytes(self) -> int | None:
        """Highest charge of the group (pages of files included), None where the kernel does not tell."""
        name = "memory.max_usage_in_bytes" if self.kind == "cgroup-v1" else "memory.peak"
        text = read_text(self.path / name).strip()
        return int(text) if text.isdigit() else None

    def remove(self) -> None:
        """Kill what is left in the group and remove it."""
        for _ in range(_REMOVE_ATTEMPTS):
            for process in read_text(self.path / "cgroup.procs").split():
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
    for group in groups("memory"):
        if group.version == 1:
            if (group.folders[-1] / "memory.limit_in_bytes").exists():
                yield group.folders[0], "cgroup-v1"
                yield group.folders[-1], "cgroup-v1"
                return
            continue
        # A group that holds processes cannot hand its memory controller down: the parents may.
        for parent in group.folders:
            if "memory" in read_text(parent / "cgroup.subtree_control").split():
                yield parent, "cgroup-v2"


def _remove_abandoned(parent: Path) -> None:
    """Remove groups whose maker was killed before it could; groups in use refuse to be removed."""
    with suppress(OSError):
        for path in parent.glob(f"{_NAME}*"):
            maker = path.name.removeprefix(_NAME).partition("-")[0]
            if maker.isdigit() and not Path(f"/proc/{maker}").exists():
                for inner in (path / LEAF, *path.glob(f"{_NAME}*")):
                    with suppress(OSError):
                        inner.rmdir()
                with suppress(OSError):
                    path.rmdir()
