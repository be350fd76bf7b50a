"""A training asks for room on the disk before its first step."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_profiles.errors import ExecutionError
from edge_runtime.device.prepare.disk_room import check_disk, free_bytes
from edge_runtime.device.prepare.job import new_job
from edge_runtime.device.prepare.output_size import bytes_to_come, output_bytes
from edge_runtime.device.worker.job import Job, ProgramJob

_MEGABYTE = 1 << 20


def _job(folder: Path, *, every: int = 10, continued: bool = False) -> Job:
    """1 MB of parameters with their momentum: a checkpoint of 2 MB, an update of 1."""
    tensors = [
        ("w", "parameter", "float32", (512, 512), None),
        ("m", "momentum", "float32", (512, 512), None),
        ("sum", "gradient_sum", "float32", (512, 512), None),
    ]
    program = ProgramJob(tensors=tensors)  # type: ignore[typeddict-item] # what else it has is not asked for
    job = new_job("train", program, threads=1, json=True)
    job["output"], job["checkpoint"] = str(folder / "u"), str(folder / "u.checkpoint")
    job["steps"], job["checkpoint_every"] = 100, every
    if continued:
        job["state"] = {"w": (str(folder / "u.checkpoint"), 0, _MEGABYTE)}
    return job


def _disk(monkeypatch: pytest.MonkeyPatch, free: int, *, blocks: int = 1 << 20, for_users: int | None = None) -> None:
    about = SimpleNamespace(
        f_blocks=blocks, f_bfree=free, f_bavail=free if for_users is None else for_users, f_frsize=1
    )
    monkeypatch.setattr(os, "statvfs", lambda _: about)


@pytest.mark.parametrize(
    ("every", "continued", "megabytes"),
    [(10, False, 4), (10, True, 2), (0, False, 2), (100, False, 2), (0, True, 2)],
)
def test_checkpoints_that_replace_each_other_count_twice(
    every: int, continued: bool, megabytes: int, tmp_path: Path
) -> None:
    job = _job(tmp_path, every=every, continued=continued)
    assert 0 <= bytes_to_come(job) - megabytes * _MEGABYTE < 32 << 10
    assert output_bytes(job) >= bytes_to_come(job)


def test_no_room_is_one_line_with_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(tmp_path / "not" / "yet")
    _disk(monkeypatch, bytes_to_come(job))
    check_disk(job)
    _disk(monkeypatch, bytes_to_come(job) - 1)
    with pytest.raises(ExecutionError) as raised:
        check_disk(job)
    assert str(raised.value) == (
        f"-o {tmp_path}/not/yet/u: the update and its checkpoints take 4.1 MB, 4.0 MB are free in {tmp_path}; "
        "make room there, or choose another place"
    )


def test_what_is_kept_for_root_is_not_free_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _disk(monkeypatch, 9, for_users=5)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert free_bytes(tmp_path) == 5
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert free_bytes(tmp_path) == 9


def test_a_file_system_that_does_not_tell_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _disk(monkeypatch, 0, blocks=0)
    check_disk(_job(tmp_path))


def test_an_output_that_is_no_file_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _disk(monkeypatch, 0)
    job = _job(tmp_path)
    job["checkpoint"] = None
    check_disk(job)
