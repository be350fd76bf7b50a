"""When pages of mapped frozen weights may be given back, and how much of them is resident at most."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.export.graph import StepGraph, Value

RELEASED_FROM_BYTES = 128 << 10
"""Smaller tensors stay: giving them back would save less than the neighbours that a page fault brings along."""
FAULT_AROUND_BYTES = 64 << 10
"""Linux maps the pages around a fault that are in its cache, this many bytes at once, at both ends of a tensor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenResidency:
    """Per frozen input, the operations after which its pages may go; `peak_bytes` is the most that is resident."""

    released_after: dict[Value, tuple[int, ...]]
    peak_bytes: int


def frozen_residency(graph: StepGraph) -> FrozenResidency:
    """Release a large tensor after every operation that reads it; small ones stay resident."""
    released: dict[Value, tuple[int, ...]] = {}
    largest = 0
    for position, operation in enumerate(graph.operations):
        read = {v for v in operation.reads if v.role == "frozen" and v.bytes >= RELEASED_FROM_BYTES}
        largest = max(largest, sum(value.bytes + 2 * FAULT_AROUND_BYTES for value in read))
        for value in read:
            released[value] = (*released.get(value, ()), position)
    stays = sum(value.bytes for value in graph.inputs if value.role == "frozen" and value not in released)
    return FrozenResidency(released_after=released, peak_bytes=stays + largest)
