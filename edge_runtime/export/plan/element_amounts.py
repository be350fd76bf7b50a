"""What a kernel does that multiplies no matrices, in amounts that take time: bytes, and planes of neighbours."""

from __future__ import annotations

import math
from functools import cache

from device_profiles.optimizers import OPTIMIZERS
from edge_runtime.export.ir.graph import Operation

Amounts = dict[str, float]

_CACHE_BYTES = 1 << 20
"""An operation on more than this waits for memory."""


def moved_bytes(operation: Operation) -> int:
    """Bytes of all tensors that an operation reads or writes."""
    return sum(value.bytes for value in (*operation.reads, *operation.writes))


_KINDS = (
    # Of operators that go over their tensors once, by the begin and the end of their names: those that take about the
    # same time for the same bytes. The first that fits counts.
    ("global_average_pool", "", "sums"),
    ("channel_sum", "", "sums"),
    ("max_pool", "_backward", "unpooling"),
    ("average_pool", "_backward", "unpooling"),
    ("max_pool", "", "pooling"),
    ("average_pool", "", "pooling"),
    ("layer_norm", "_backward", "layer statistics backward"),
    ("layer_norm", "_apply", "element"),
    ("batch_norm", "_backward", "statistics backward"),
    ("group_norm", "_backward", "statistics backward"),
    ("batch_norm", "_apply", "normalization"),
    ("batch_norm", "_frozen", "normalization"),
    ("batch_norm", "", "statistics"),
    ("group_norm", "", "statistics"),
    ("layer_norm", "", "statistics"),
    ("arithmetic", "", "broadcast"),
    ("sum_", "", "broadcast sums"),
    ("strided_copy", "", "copies"),
    ("permute", "", "copies"),
    ("cross_entropy", "", "loss"),
    ("gelu", "", "activation"),
    ("activation", "", "activation"),
    ("softmax", "", "activation"),
)
_BY_PLANES = frozenset(
    {
        "statistics",
        "statistics backward",
        "normalization",
        "broadcast",
        "broadcast sums",
        "sums",
        "pooling",
        "unpooling",
    }
)


def is_update(operator: str) -> bool:
    """Whether a kernel is an optimizer's step alone."""
    return operator.partition("_")[0] in OPTIMIZERS


@cache
def _kind(operator: str) -> str:
    if is_update(operator):
        return "update"
    fitting = (kind for begin, end, kind in _KINDS if operator.startswith(begin) and operator.endswith(end))
    return next(fitting, "element")


def by_elements(operation: Operation) -> Amounts:
    """Of an operation that goes over its tensors once: bytes, and planes where each is gone over by itself."""
    moved = moved_bytes(operation)
    kind = _kind(operation.operator)
    amounts = {f"{kind} bytes": float(moved), "waiting bytes": float(max(0, moved - _CACHE_BYTES))}
    if kind in _BY_PLANES:
        amounts[f"{kind} planes"] = float(_planes(operation))
    return amounts


def _planes(operation: Operation) -> int:
    """Planes of neighbours in memory; a tensor that is gone over as a whole is one."""
    values = (*operation.reads, *operation.writes)
    largest = max(values, key=lambda value: math.prod(value.shape)).shape
    if operation.operator == "arithmetic" and len({value.shape for value in operation.reads}) == 1:
        return 1
    return math.prod(largest[:2]) if len(largest) > 2 else 1
