"""What a job keeps as files in memory is a part of its promise: a control group charges it to the training process.

These are the update and the checkpoints, the cache of the prefix, and data that were unpacked to a temporary file.
"""

from __future__ import annotations

import os

from device_profiles.places import in_memory, is_file_in_memory
from edge_runtime.device.prepare.output_size import HEADER_BYTES, output_bytes, paged
from edge_runtime.device.worker.job import CacheJob, DataJob, Job


def add_files_in_memory(job: Job) -> None:
    """Add them to the promises of the job's programs."""
    files = _unpacked_bytes(job["data"])
    cache = job["cache"]
    if cache is not None:
        if in_memory(cache["path"]):
            files += paged(HEADER_BYTES + _examples(job["data"]) * cache["versions"] * _row_bytes(cache))
        cache["program"]["memory"]["files"] = files
    if job["checkpoint"] is not None and in_memory(job["checkpoint"]):
        files += output_bytes(job)
    job["program"]["memory"]["files"] = files


def _unpacked_bytes(data: DataJob | None) -> int:
    """Unnamed files, which only this job has; what has a name was there before."""
    files = {part[0] for part in data["parts"]} if data is not None else set()
    own = [os.fstat(file) for file in files if is_file_in_memory(file)]
    return sum(about.st_blocks * 512 for about in own if about.st_nlink == 0)


def _examples(data: DataJob | None) -> int:
    if data is None:
        return 0
    item_bytes = {"B": 1, "q": 8, "f": 4}[data["label_format"]] * (data["targets"] or 1)
    return len(data["labels"]) // item_bytes


def _row_bytes(cache: CacheJob) -> int:
    count = cache["channels"] * cache["values"]
    return {"float32": 4 * count, "float16": 2 * count, "int8": count + 8 * cache["channels"]}[cache["dtype"]]
