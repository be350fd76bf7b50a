"""How large the files are that a training leaves and keeps meanwhile: its update and its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable

from device_profiles.contract import TRAINED_ROLES
from edge_runtime.device.worker.job import Job, NamedValue

_PAGE_BYTES = 4096
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int64": 8}
HEADER_BYTES = 4096
_ENTRY_BYTES = 160
"""Of a safetensors header, for each tensor beside its name."""


def output_bytes(job: Job) -> int:
    """The most at one time: two checkpoints, of which one replaces the other, or a checkpoint and the update."""
    every = job["checkpoint_every"]
    earlier = paged(_checkpoint_bytes(job)) if 0 < every < job["steps"] else 0
    return earlier + paged(max(_checkpoint_bytes(job), _update_bytes(job)))


def bytes_to_come(job: Job) -> int:
    """The same without the checkpoint that the training continues from, which is there already."""
    there = paged(_checkpoint_bytes(job)) if job["state"] and 0 < job["checkpoint_every"] < job["steps"] else 0
    return output_bytes(job) - there


def paged(size: int) -> int:
    """Bytes of the whole pages that `size` bytes take."""
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES


def _checkpoint_bytes(job: Job) -> int:
    kept = [tensor for tensor in job["program"]["tensors"] if tensor[1] != "gradient_sum"]
    return _size(kept) + len(job["settings"].encode())


def _update_bytes(job: Job) -> int:
    return _size([tensor for tensor in job["program"]["tensors"] if tensor[1] in TRAINED_ROLES])


def _size(tensors: Iterable[NamedValue]) -> int:
    """Bytes of a safetensors file."""
    total = HEADER_BYTES
    for name, _, dtype, shape, _ in tensors:
        total += _ITEM_BYTES[dtype] * math.prod(shape) + len(name.encode()) + _ENTRY_BYTES
    return total
