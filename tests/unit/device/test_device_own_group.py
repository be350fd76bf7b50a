"""A group of this process itself, in folders that stand for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_profiles.contract import LimitKind
from edge_runtime.device.limits import own_group
from edge_runtime.device.limits.cgroups import LEAF, MemoryGroup
from edge_runtime.device.limits.control_groups import Group
from edge_runtime.device.limits.own_group import OwnGroup

_LIMIT = 128 << 20


def _kernel(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: LimitKind, version: int) -> Path:
    """Folders of which `outside` is this process's group; the new one is `outside/new`."""
    outside, new = folder / "outside", folder / "outside" / "new"
    new.mkdir(parents=True)
    monkeypatch.setattr(own_group, "groups", lambda name: iter([Group(version=version, folders=(outside,))]))
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
