"""What lives in the arena at each operation of a program: its timeline, as a bundle's `timelines.json` states it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from device_profiles.timeline import PlanTimeline
from edge_runtime.export.ir.graph import PERSISTENT_ROLES, Operation, StepGraph, Value, ValueRole
from edge_runtime.export.plan.arena import ArenaPlan
from edge_runtime.export.plan.placing import Span

_LOSSES = ("cross_entropy", "cross_entropy_of_batch", "mean_squared_error")
_MULTIPLICATIONS_PER_BYTE = 4
"""About the time to move one byte, in multiply-additions; only the axis of a picture depends on it."""

Part = Literal["parameters", "optimizer_state", "activations", "gradients", "temporaries"]
_PARTS: tuple[Part, ...] = ("parameters", "optimizer_state", "activations", "gradients", "temporaries")
_STATE_PARTS: dict[ValueRole, Part] = {
    "parameter": "parameters",
    "running_statistic": "parameters",
    "optimizer_state": "optimizer_state",
    "gradient_sum": "gradients",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """Bytes of the arena that values share, alive during `span`.

    `touched` is the operation that uses them first: before it an optimizer's state and sums of gradients are zero pages
    that do not exist.
    """

    offset: int
    size: int
    span: Span
    touched: int
    part: Part


def plan_timeline(graph: StepGraph, plan: ArenaPlan) -> PlanTimeline:
    """The timeline of a program that has at least one operation."""
    storages = list(_storages(graph, plan))
    count = len(graph.operations)
    changes: dict[Part, list[int]] = {part: [0] * (count + 1) for part in _PARTS}
    for storage in storages:
        changes[storage.part][storage.span[0]] += storage.size
        changes[storage.part][storage.span[1] + 1] -= storage.size
    columns = {part: list(accumulate(change[:count])) for part, change in changes.items()}
    return PlanTimeline(
        work=tuple(_work_shares(graph)),
        parameters_bytes=tuple(columns["parameters"]),
        optimizer_state_bytes=tuple(columns["optimizer_state"]),
        activations_bytes=tuple(columns["activations"]),
        gradients_bytes=tuple(columns["gradients"]),
        temporaries_bytes=tuple(columns["temporaries"]),
        touched_bytes=tuple(_touched(storages, count)),
    )


def _storages(graph: StepGraph, plan: ArenaPlan) -> Iterator[_Storage]:
    """A frozen tensor that is read anew is a storage of its own for every operation that takes it."""
    loss = next((i for i, operation in enumerate(graph.operations) if operation.operator in _LOSSES), None)
    fed = {value.root for operation in graph.operations for value in _fed_to_update(operation)}
    first_use: dict[Value, int] = {}
    for position, operation in enumerate(graph.operations):
        for value in _tensors(operation):
            first_use.setdefault(value.root, position)
    end = len(graph.operations) - 1
    for root, placement in plan.placements.items():
        for span in placement.spans:
            part: Part = "temporaries"
            touched = span[0]
            if root.role in PERSISTENT_ROLES:
                part = _STATE_PARTS[root.role]
                touched = 0 if part == "parameters" else first_use.get(root, end)
            elif root in fed:
                part = "gradients"
            elif root.role != "frozen" and loss is not None and span[0] < loss < span[1]:
                part = "activations"
            yield _Storage(offset=placement.offset, size=root.bytes, span=span, touched=touched, part=part)


def _fed_to_update(operation: Operation) -> list[Value]:
    """What an update reads beside the parameter, which it takes first; a fused one computes its gradient itself."""
    first = operation.arguments[0] if operation.arguments else None
    if not isinstance(first, Value) or first.role != "parameter":
        return []
    return operation.reads[1:] if any(value.root is first.root for value in operation.writes) else []


def _touched(storages: list[_Storage], count: int) -> Iterator[int]:
    """Bytes of the arena that were in use up to each operation: the union of the storages begun so far."""
    begun = sorted(storages, key=lambda storage: storage.touched)
    taken: list[Span] = []
    position = 0
    for operation in range(count):
        start = position
        while position < len(begun) and begun[position].touched <= operation:
            taken.append((begun[position].offset, begun[position].offset + begun[position].size))
            position += 1
        if position > start:
            taken = _merged(taken)
        yield sum(end - begin for begin, end in taken)


def _merged(ranges: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for begin, end in sorted(ranges):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _work_shares(graph: StepGraph) -> Iterator[float]:
    work = [_work(operation) for operation in graph.operations]
    total, before = sum(work) or 1, 0
    for amount in work:
        yield round(min(before / total, 1.0), 5)
        before += amount


def _work(operation: Operation) -> int:
    """Multiply-additions of convolutions and linear layers, and the bytes of every tensor an operator takes."""
    taken = _tensors(operation)
    moved = sum(value.bytes for value in taken)
    if not operation.operator.startswith(("conv2d", "linear")) or len(taken) < 3:
        return moved * _MULTIPLICATIONS_PER_BYTE
    weight, image = taken[1], taken[-1]
    if operation.operator.endswith("weight_grad"):
        weight, image = taken[-1], taken[0]
    elif operation.operator.endswith("input_grad"):
        image = taken[0]
    positions = image.shape[:1] + image.shape[2:]
    return math.prod(weight.shape) * math.prod(positions) + moved * _MULTIPLICATIONS_PER_BYTE


def _tensors(operation: Operation) -> list[Value]:
    return [*operation.reads, *operation.writes]
