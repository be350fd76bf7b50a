"""Room on the disk for what a training leaves: asked for before its first step, not found missing after its last."""

from __future__ import annotations

import math
import os
from pathlib import Path

from device_profiles.errors import ExecutionError
from edge_runtime.device.prepare.output_size import bytes_to_come
from edge_runtime.device.worker.job import Job

_MEGABYTE = 1 << 20


def check_disk(job: Job) -> None:
    """Raise ExecutionError where the folder of the output has no room for the update and its checkpoints."""
    if job["checkpoint"] is None:  # no file, or one that is written in its place
        return
    folder = next(place for place in Path(job["checkpoint"]).absolute().parents if place.is_dir())
    free, needed = free_bytes(folder), bytes_to_come(job)
    if free is not None and free < needed:
        raise ExecutionError(
            f"the update and its checkpoints take {_tenths(needed, up=True):.1f} MB, {_tenths(free):.1f} MB are free "
            f"in {folder}",
            field="output",
            value=job["output"],
            remedy="make room there, or choose another place",
        )


def free_bytes(folder: Path) -> int | None:
    """What this user may still write there; None where the file system does not tell."""
    about = os.statvfs(folder)
    if not about.f_blocks:
        return None
    return (about.f_bfree if os.geteuid() == 0 else about.f_bavail) * about.f_frsize


def _tenths(size: int, *, up: bool = False) -> float:
    """Megabytes with one digit, rounded so that what is needed never looks as much as what is free."""
    tenths = 10 * size / _MEGABYTE
    return (math.ceil(tenths) if up else math.floor(tenths)) / 10
