"""A control group for this process itself: its memory and that of all that it starts count against one limit."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edge_runtime.device.limits.cgroups import LEAF, MemoryGroup, create_group
from edge_runtime.device.limits.control_groups import groups


class OwnGroup:
    """A group with `limit_bytes`, where this user may make one; else nothing happens.

    Groups that this process makes for what it starts (`start_limited`) lie inside of it. Call `leave` in the end.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._inside: tuple[MemoryGroup, Path] | None = None
        """The group, and the folder of the one that this process came from."""

    @property
    def entered(self) -> bool:
        """Whether this process is in a group of its own."""
        return self._inside is not None

    def enter(self) -> None:
        """Move into a new group."""
        outside = _own_folder()
        if self._inside is not None or outside is None:
            return
        group = create_group(self._limit)
        if group is None:
            return
        try:
            _move(_leaf(group))
        except OSError:
            _remove(group)
            return
        self._inside = group, outside

    def leave(self) -> None:
        """Move back to where it came from, and remove the group."""
        if self._inside is None:
            return
        group, outside = self._inside
        with suppress(OSError):
            _move(outside)
            _remove(group)
        self._inside = None


def _own_folder() -> Path | None:
    group = next(groups("memory"), None)
    return None if group is None else group.folders[0]


def _leaf(group: MemoryGroup) -> Path:
    """Where processes go: in version 2, a group that hands its controller down holds none itself."""
    if group.kind == "cgroup-v1":
        return group.path
    leaf = group.path / LEAF
    leaf.mkdir()
    (group.path / "cgroup.subtree_control").write_text("+memory")
    return leaf


def _move(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def _remove(group: MemoryGroup) -> None:
    with suppress(OSError):
        (group.path / LEAF).rmdir()
    group.remove()
