"""Which frozen weights are read anew whenever they are needed, instead of staying in memory."""

from __future__ import annotations

from edge_runtime.export.ir.graph import StepGraph, Value

READ_ANEW_FROM_BYTES = 16 << 10
"""Smaller tensors stay: together they are few bytes, and reading is a call of the operating system."""


def read_anew(graph: StepGraph) -> dict[Value, tuple[int, ...]]:
    """The large frozen inputs, each with the operations that read it: it is in the arena during these alone."""
    reads: dict[Value, list[int]] = {}
    for position, operation in enumerate(graph.operations):
        for value in dict.fromkeys(v for v in operation.reads if v.role == "frozen"):
            reads.setdefault(value, []).append(position)
    return {value: tuple(at) for value, at in reads.items() if value.bytes >= READ_ANEW_FROM_BYTES}


def staying(graph: StepGraph) -> list[Value]:
    """The frozen inputs that lie outside of the arena, for as long as the program is loaded."""
    anew = read_anew(graph)
    return [value for value in graph.inputs if value.role == "frozen" and value not in anew]
