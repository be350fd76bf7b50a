"""Room on the disk for what a training leaves: asked for before its first step, not found missing after its last."""

from __future__ import annotations

import os
from pathlib import Path

from device_profiles.errors import ExecutionError
from device_profiles.sizes import MEGABYTE
from edge_runtime.device.prepare.output_size import bytes_to_come
from edge_runtime.device.worker.job import Job
from edge_runtime.device.worker.text import tenths_up


def check_disk(job: Job) -> None:
    """Raise ExecutionError where the folder of the output has no room for the update and its checkpoints."""
    if job["checkpoint"] is None:  # no file, or one that is written in its place
        return
    folder = next(place for place in Path(job["checkpoint"]).absolute().parents if place.is_dir())
    free, needed = free_bytes(folder), bytes_to_come(job)
    if free is not None and free < needed:
        raise ExecutionError(
            f"the update and its checkpoints take {tenths_up(needed)} MB, {free * 10 // MEGABYTE / 10:.1f} MB are free "
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
