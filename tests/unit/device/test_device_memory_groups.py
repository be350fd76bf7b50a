"""A memory group in a folder that stands for the kernel's: which files are written, and what is read of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.device.limits import cgroups
from edge_runtime.device.limits.cgroups import MemoryGroup, create_group
from edge_runtime.device.limits.control_groups import Group

LIMIT = 64 << 20


def test_version_1_limits_memory_and_swap_together(tmp_path: Path) -> None:
    (tmp_path / "memory.memsw.limit_in_bytes").write_text("")
    MemoryGroup(tmp_path, "cgroup-v1").limit(LIMIT)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == str(LIMIT)
    assert (tmp_path / "memory.memsw.limit_in_bytes").read_text() == str(LIMIT)


def test_version_2_allows_no_swap_beside_its_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.swap.max").write_text("max")
    MemoryGroup(tmp_path, "cgroup-v2").limit(LIMIT)
    assert (tmp_path / "memory.max").read_text() == str(LIMIT)
    assert (tmp_path / "memory.swap.max").read_text() == "0"


@pytest.mark.parametrize("kind", ["cgroup-v1", "cgroup-v2"])
def test_where_swap_is_not_counted_no_file_of_it_is_made(kind: str, tmp_path: Path) -> None:
    MemoryGroup(tmp_path, kind).limit(LIMIT)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_limit_that_cannot_be_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        MemoryGroup(tmp_path / "gone", "cgroup-v2").limit(LIMIT)


@pytest.mark.parametrize(
    ("kind", "events", "peak"),
    [
        ("cgroup-v1", "memory.oom_control", "memory.max_usage_in_bytes"),
        ("cgroup-v2", "memory.events", "memory.peak"),
    ],
)
def test_kills_and_peak_are_the_kernels(kind: str, events: str, peak: str, tmp_path: Path) -> None:
    group = MemoryGroup(tmp_path, kind)
    assert group.oom_kills() == 0 and group.peak_bytes() is None
    (tmp_path / events).write_text("low 9\noom 8\noom_kill 3\noom_group_kill 7\n")
    (tmp_path / peak).write_text("1234\n")
    assert group.oom_kills() == 3 and group.peak_bytes() == 1234
    (tmp_path / events).write_text("low 9\n")
    (tmp_path / peak).write_text("max\n")
    assert group.oom_kills() == 0 and group.peak_bytes() is None


def test_a_group_is_removed_and_what_is_left_in_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, killed = tmp_path / "group", []
    folder.mkdir()
    (folder / "cgroup.procs").write_text("11\n12\n")

    def kill(process: int, signal: int) -> None:
        killed.append((process, signal))
        if len(killed) == 1:
            raise ProcessLookupError
        if len(killed) == 4:  # the kernel needs a moment, and so does the group
            (folder / "cgroup.procs").unlink()

    monkeypatch.setattr("os.kill", kill)
    MemoryGroup(folder, "cgroup-v2").remove()
    assert not folder.exists() and killed == [(11, 9), (12, 9), (11, 9), (12, 9)]
    MemoryGroup(folder, "cgroup-v2").remove()


def test_a_group_that_does_not_go_is_given_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    (tmp_path / "never gone").touch()
    MemoryGroup(tmp_path, "cgroup-v2").remove()
    assert sum(waited) == pytest.approx(1.0) and len(waited) > 10


@pytest.fixture
def parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Group]]:
    """The groups that this process is said to be in; a folder made below them has the file that lets processes in."""
    found: list[Group] = []
    monkeypatch.setattr(cgroups, "groups", lambda controller: iter(found if controller == "memory" else []))
    mkdir = Path.mkdir

    def make(self: Path, *arguments: object, **options: object) -> None:
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]
        if self.name.startswith("profl-edge-"):
            (self / "cgroup.procs").touch()

    monkeypatch.setattr(Path, "mkdir", make)
    yield found


def test_a_group_is_made_below_the_first_that_hands_memory_down(tmp_path: Path, parents: list[Group]) -> None:
    own, parent = tmp_path / "a" / "b", tmp_path / "a"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("cpu\n")
    (parent / "cgroup.subtree_control").write_text("cpu memory\n")
    parents.append(Group(version=2, folders=(own, parent)))
    first, second = create_group(LIMIT), create_group(LIMIT + 1)
    assert first is not None and second is not None and first.path != second.path
    assert first.kind == "cgroup-v2" and first.path.parent == parent
    assert (first.path / "memory.max").read_text() == str(LIMIT)
    assert (second.path / "memory.max").read_text() == str(LIMIT + 1)


def test_version_1_is_taken_where_memory_is_counted_there(tmp_path: Path, parents: list[Group]) -> None:
    own, mount = tmp_path / "mount" / "own", tmp_path / "mount"
    own.mkdir(parents=True)
    parents.append(Group(version=1, folders=(own, mount)))
    assert create_group(LIMIT) is None
    (mount / "memory.limit_in_bytes").write_text("9")
    made = create_group(LIMIT)
    assert made is not None and made.kind == "cgroup-v1" and made.path.parent == own
    own.rename(tmp_path / "not seen from a container")
    made = create_group(LIMIT)
    assert made is not None and made.kind == "cgroup-v1" and made.path.parent == mount


def test_a_hierarchy_of_version_1_hands_nothing_down(tmp_path: Path, parents: list[Group]) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    parents.append(Group(version=1, folders=(tmp_path,)))
    assert create_group(LIMIT) is None


def test_where_no_group_may_be_made_there_is_none_and_nothing_is_left(
    tmp_path: Path, parents: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    parents.append(Group(version=2, folders=(tmp_path,)))

    def refuse(self: MemoryGroup, limit_bytes: int) -> None:
        (self.path / "cgroup.procs").unlink()
        raise PermissionError

    monkeypatch.setattr(MemoryGroup, "limit", refuse)
    assert create_group(LIMIT) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.subtree_control"]


def test_a_group_that_no_process_may_enter_is_none(
    tmp_path: Path, parents: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    parents.append(Group(version=2, folders=(tmp_path,)))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert create_group(LIMIT) is None


def test_groups_of_makers_that_are_gone_are_removed_and_others_stay(tmp_path: Path, parents: list[Group]) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    parents.append(Group(version=2, folders=(tmp_path,)))
    for name in ("profl-edge", "gone-999999999-0", "other"):
        (tmp_path / name).mkdir()
    gone, alive = tmp_path / "profl-edge-999999999-0", tmp_path / "profl-edge-1-0"
    odd = tmp_path / "profl-edge-x-0"
    for folder in (gone, alive, odd):
        folder.mkdir()
        (folder / "cgroup.procs").unlink()
    assert create_group(LIMIT) is not None
    assert not gone.exists() and alive.exists() and odd.exists() and (tmp_path / "other").exists()
