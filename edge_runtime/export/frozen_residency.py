"""Which frozen weights are read anew whenever they are needed, and how much of all of them is resident at most."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.export.graph import StepGraph, Value
from edge_runtime.export.memory_plan import aligned

READ_ANEW_FROM_BYTES = 16 << 10
"""Smaller tensors stay: together they are few bytes, and reading is a call of the operating system."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenResidency:
    """Per frozen input that shares its memory with others, the operations that read it; `peak_bytes` are those of that
    memory and of all other frozen inputs."""

    released_after: dict[Value, tuple[int, ...]]
    peak_bytes: int


def frozen_residency(graph: StepGraph) -> FrozenResidency:
    """Let large tensors share the memory of the largest one, as long as no operation reads two of them."""
    reads: dict[Value, list[int]] = {}
    for position, operation in enumerate(graph.operations):
        for value in dict.fromkeys(v for v in operation.reads if v.role == "frozen"):
            reads.setdefault(value, []).append(position)
    released: dict[Value, tuple[int, ...]] = {}
    taken: set[int] = set()
    for value in sorted(reads, key=lambda v: -v.bytes):
        if value.bytes >= READ_ANEW_FROM_BYTES and taken.isdisjoint(reads[value]):
            taken.update(reads[value])
            released[value] = tuple(reads[value])
    stays = sum(aligned(v.bytes) for v in graph.inputs if v.role == "frozen" and v not in released)
    return FrozenResidency(
        released_after=released, peak_bytes=stays + max((aligned(value.bytes) for value in released), default=0)
    )
