"""Outputs: what is no file of ours stays, what is new has the user's modes, and what is finished is never lost."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from device_profiles.errors import DigestError, UsageError
from device_profiles.files import atomic_file, check_output_file
from device_profiles.folders import atomic_folder
from device_profiles.outputs import OutputFile, beside, temporary_name
from device_profiles.seal import SEAL_KEY, UNSEALED, check_seal, seal
from edge_runtime.device.prepare.lock import exclusive
from edge_runtime.device.worker.files import write_tensors

_PARTS = ("manifest.json", "programs/*.pte", "weights/*.safetensors")


def _by_path(path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"new")


def _by_bytes(path: Path) -> None:
    with OutputFile(str(path)) as output:
        output.write(b"new")


_WRITERS = pytest.mark.parametrize("write", [_by_path, _by_bytes])
Write = Callable[[Path], None]


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@_WRITERS
def test_a_link_stays_and_what_it_leads_to_is_replaced(write: Write, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name, target in (("link", "far/file"), ("chain", "link"), ("dangling", "far/other")):
        (tmp_path / name).symlink_to(target)
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["file", "other"]


@_WRITERS
def test_a_device_is_written_as_it_is(write: Write) -> None:
    before = os.stat(os.devnull)
    write(Path(os.devnull))
    after = os.stat(os.devnull)
    assert stat.S_ISCHR(after.st_mode) and (after.st_rdev, after.st_ino) == (before.st_rdev, before.st_ino)


@_WRITERS
def test_what_would_be_destroyed_or_wait_for_others_is_refused(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket"))
        for name, what in (("pipe", "named pipe"), ("socket", "is a socket"), ("", "is a folder"), ("loop", "links")):
            for attempt in (write, check_output_file):
                with pytest.raises((UsageError, OSError), match=what):
                    attempt(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "pipe", "socket"]


@_WRITERS
def test_new_files_have_the_mode_of_the_users_own(write: Write, tmp_path: Path, umask: int) -> None:
    write(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_folders_and_what_is_in_them_have_the_users_modes(tmp_path: Path, umask: int) -> None:
    with atomic_folder(tmp_path / "bundle", _PARTS) as folder:
        (folder / "programs").mkdir()
        save_file({"a": np.zeros(2, np.float32)}, folder / "programs" / "a.pte")  # which makes it private
        (folder / "manifest.json").write_text("{}")
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "bundle/programs/a.pte").stat().st_mode & 0o777 == 0o666 & ~umask


@_WRITERS
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_file_system_that_cannot_rename_over_a_file_gets_the_bytes(
    write: Write, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    (tmp_path / "file").write_bytes(b"something longer")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@_WRITERS
@pytest.mark.parametrize("name", ["fsync", "chmod", "fchmod"])
def test_a_file_system_that_does_not_sync_or_know_modes_takes_files(
    write: Write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        number = errno.EINVAL if name == "fsync" else errno.EPERM
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, refuse)
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


# What the body of atomic_file writes it closes itself, so that an error of that is its own.
@pytest.mark.parametrize(("write", "name"), [(_by_path, "fsync"), (_by_bytes, "fsync"), (_by_bytes, "close")])
def test_a_disk_that_is_found_full_at_the_end_keeps_the_old_file(
    write: Write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    real: Any = getattr(os, name)

    def full(file: int) -> None:
        regular = stat.S_ISREG(os.fstat(file).st_mode) and os.fstat(file).st_size == 3
        if name == "close":
            real(file)
        if regular:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file")
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@_WRITERS
def test_the_longest_names_are_written(write: Write, tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127 + "n"):
        path = tmp_path / name
        write(path)
        assert path.read_bytes() == b"new"
        for ending in (".checkpoint", ".lock"):
            assert len(os.fsencode(os.path.basename(beside(str(path), ending)))) <= 255
        assert len(os.fsencode(os.path.basename(temporary_name(str(path))))) <= 255
        with exclusive(path):
            pass
    assert beside(str(tmp_path / ("n" * 254)), ".lock") != beside(str(tmp_path / ("n" * 255)), ".lock")
    assert beside("folder/name", ".lock") == "folder/name.lock"


def test_a_file_in_the_place_of_the_lock_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "out.lock").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.lock is not a lock file"), exclusive(tmp_path / "out"):
        pass
    assert (tmp_path / "out.lock").read_text() == "mine"


def _make(folder: Path) -> None:
    with atomic_folder(folder, _PARTS) as made:
        (made / "programs").mkdir()
        (made / "programs" / "a.pte").write_text("program")
        (made / "manifest.json").write_text("{}")


@pytest.mark.parametrize("mine", ["notes.txt", "programs/deep/a.pte", "other/a.pte", "weights/a.txt"])
def test_a_folder_that_holds_anything_else_is_never_replaced(mine: str, tmp_path: Path) -> None:
    _make(tmp_path / "bundle")
    (tmp_path / "bundle" / mine).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / "bundle" / mine).write_text("mine")
    with pytest.raises(UsageError, match=f"contains {mine}"):
        _make(tmp_path / "bundle")
    assert (tmp_path / "bundle" / mine).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_of_somebody_elses_manifest_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("an application's")
    with pytest.raises(UsageError, match="no programs"):
        _make(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "an application's"


def test_a_folder_of_our_own_an_empty_one_and_the_current_one_are_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "link").symlink_to("bundle")
    inode = (tmp_path / "bundle").stat().st_ino
    _make(tmp_path / "link")
    monkeypatch.chdir(tmp_path / "bundle")
    _make(Path("."))
    assert (tmp_path / "bundle").stat().st_ino == inode
    monkeypatch.undo()
    _make(tmp_path / "bundle")
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["manifest.json", "programs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "link"]


def test_every_byte_of_a_sealed_file_counts(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    values = np.arange(6, dtype=np.float32)
    write_tensors(str(ours), [("a", "float32", memoryview(values))], {"note": "x"})
    save_file({"a": values}, others, metadata={SEAL_KEY: UNSEALED})
    seal(str(others))
    for path in (ours, others):
        check_seal(str(path), remedy="r", required=True)
        assert load_file(path)["a"].tolist() == values.tolist()
        good = path.read_bytes()
        for position in range(len(good)):
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(DigestError):
                check_seal(str(path), remedy="r", required=True)
        for damaged in (good[:-1], good + b"\0", b""):
            path.write_bytes(damaged)
            with pytest.raises(DigestError):
                check_seal(str(path), remedy="r", required=True)
