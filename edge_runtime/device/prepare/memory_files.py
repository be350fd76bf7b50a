"""What a job keeps as files in memory is a part of its promise: a control group charges it to the training process.

These are the update and the checkpoints, the cache of the prefix, and data that were unpacked to a temporary file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

from device_profiles.contract import TRAINED_ROLES
from device_profiles.places import in_memory, is_file_in_memory
from edge_runtime.device.worker.job import CacheJob, DataJob, Job, NamedValue

_PAGE_BYTES = 4096
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int64": 8}
_HEADER_BYTES = 4096
_ENTRY_BYTES = 160
"""Of a safetensors header, for each tensor beside its name."""


def add_files_in_memory(job: Job) -> None:
    """Add them to the promises of the job's programs."""
    files = _unpacked_bytes(job["data"])
    cache = job["cache"]
    if cache is not None:
        if in_memory(cache["path"]):
            files += _paged(_HEADER_BYTES + _examples(job["data"]) * cache["versions"] * _row_bytes(cache))
        cache["program"]["memory"]["files"] = files
    if job["checkpoint"] is not None and in_memory(job["checkpoint"]):
        files += _output_bytes(job)
    job["program"]["memory"]["files"] = files


def _unpacked_bytes(data: DataJob | None) -> int:
    """Unnamed files, which only this job has; what has a name was there before."""
    files = {part[0] for part in data["parts"]} if data is not None else set()
    own = [os.fstat(file) for file in files if is_file_in_memory(file)]
    return sum(about.st_blocks * 512 for about in own if about.st_nlink == 0)


def _examples(data: DataJob | None) -> int:
    if data is None:
        return 0
    item_bytes = {"B": 1, "q": 8, "f": 4 * data["targets"]}[data["label_format"]]
    return len(data["labels"]) // item_bytes


def _row_bytes(cache: CacheJob) -> int:
    count = cache["channels"] * cache["values"]
    return {"float32": 4 * count, "float16": 2 * count, "int8": count + 8 * cache["channels"]}[cache["dtype"]]


def _output_bytes(job: Job) -> int:
    """The most at one time: two checkpoints, of which one replaces the other, or a checkpoint and the update."""
    settings = len(job["settings"].encode())
    tensors = job["program"]["tensors"]
    checkpoint = _size([tensor for tensor in tensors if tensor[1] != "gradient_sum"]) + settings
    update = _size([tensor for tensor in tensors if tensor[1] in TRAINED_ROLES])
    every = job["checkpoint_every"]
    earlier = _paged(checkpoint) if 0 < every < job["steps"] else 0
    return earlier + _paged(max(checkpoint, update))


def _size(tensors: Iterable[NamedValue]) -> int:
    """Bytes of a safetensors file."""
    total = _HEADER_BYTES
    for name, _, dtype, shape, _ in tensors:
        total += _ITEM_BYTES[dtype] * math.prod(shape) + len(name.encode()) + _ENTRY_BYTES
    return total


def _paged(size: int) -> int:
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES
