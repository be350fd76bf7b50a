"""A group of this process itself, in folders that stand for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_profiles.contract import LimitKind
from edge_runtime.device.limits import cgroups, own_group
from edge_runtime.device.limits.cgroups import LEAF, MemoryGroup
from edge_runtime.device.limits.control_groups import Group
from edge_runtime.device.limits.own_group import OwnGroup

_LIMIT = 128 << 20


def _kernel(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: LimitKind, version: int) -> Path:
    """Folders of which `outside` is this process's group; the new one is `outside/new`."""
    outside, new = folder / "outside", folder / "outside" / "new"
    new.mkdir(parents=True)
    monkeypatch.setattr(own_group, "groups", lambda name: iter([Group(version=version, folders=(outside, folder))]))
    monkeypatch.setattr(own_group, "create_group", lambda limit: MemoryGroup(new, kind))
    return outside


def test_in_version_1_the_process_is_in_the_group_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outside = _kernel(monkeypatch, tmp_path, "cgroup-v1", 1)
    group = OwnGroup(_LIMIT)
    group.enter()
    assert group.entered
    assert (outside / "new" / "cgroup.procs").read_text() == str(os.getpid())
    (outside / "new" / "cgroup.procs").unlink()  # the kernel's file goes with its group
    group.leave()
    assert not group.entered
    assert (outside / "cgroup.procs").read_text() == str(os.getpid())
    assert not (outside / "new").exists()


def test_in_version_2_it_is_in_a_leaf_so_that_others_may_lie_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside = _kernel(monkeypatch, tmp_path, "cgroup-v2", 2)
    group = OwnGroup(_LIMIT)
    group.enter()
    assert (outside / "new" / LEAF / "cgroup.procs").read_text() == str(os.getpid())
    assert (outside / "new" / "cgroup.subtree_control").read_text() == "+memory"
    assert group.entered
    for name in (f"{LEAF}/cgroup.procs", "cgroup.subtree_control"):
        (outside / "new" / name).unlink()  # the kernel's
    group.leave()
    assert not (outside / "new").exists()


def test_a_process_enters_and_leaves_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outside = _kernel(monkeypatch, tmp_path, "cgroup-v1", 1)
    moves: list[Path] = []
    monkeypatch.setattr(own_group, "_move", moves.append)
    group = OwnGroup(_LIMIT)
    for _ in range(2):
        group.enter()
    for _ in range(2):
        group.leave()
    assert moves == [outside / "new", outside]


def test_where_the_process_is_in_no_group_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_group, "groups", lambda name: iter(()))
    monkeypatch.setattr(own_group, "create_group", lambda limit: pytest.fail("a group was made"))
    group = OwnGroup(_LIMIT)
    group.enter()
    assert not group.entered


def test_the_group_has_the_limit_and_lies_where_memory_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside = _kernel(monkeypatch, tmp_path, "cgroup-v1", 1)
    asked: list[object] = []
    held = Group(version=1, folders=(outside,))
    monkeypatch.setattr(own_group, "groups", lambda name: asked.append(name) or iter([held]))
    monkeypatch.setattr(own_group, "create_group", asked.append)
    OwnGroup(_LIMIT).enter()
    assert asked == ["memory", _LIMIT]


def test_where_no_group_may_be_made_the_process_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _kernel(monkeypatch, tmp_path, "cgroup-v1", 1)
    monkeypatch.setattr(own_group, "create_group", lambda limit: None)
    group = OwnGroup(_LIMIT)
    group.enter()
    group.leave()
    assert not group.entered


def test_where_the_process_may_not_be_moved_the_group_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outside = _kernel(monkeypatch, tmp_path, "cgroup-v1", 1)
    (outside / "new" / "cgroup.procs").mkdir()
    group = OwnGroup(_LIMIT)
    removed: list[Path] = []
    monkeypatch.setattr(MemoryGroup, "remove", lambda group: removed.append(group.path))
    group.enter()
    assert not group.entered
    assert removed == [outside / "new"]


def test_what_a_killed_client_left_goes_with_the_next_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.limit_in_bytes").touch()
    dead, alive = tmp_path / "profl-edge-4194305-0", tmp_path / f"profl-edge-{os.getpid()}-x"
    for folder in (dead / "profl-edge-4194305-1", dead / LEAF, alive / LEAF):
        folder.mkdir(parents=True)
    monkeypatch.setattr(cgroups, "groups", lambda name: iter([Group(version=1, folders=(tmp_path,))]))
    cgroups.create_group(_LIMIT)
    assert not dead.exists()
    assert (alive / LEAF).exists()
