"""Plan the arena: what may be overwritten in place, when each tensor lives, and where it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import overload

import numpy as np

from device_profiles.errors import ExecutionError
from edge_runtime.export.ir.graph import EXTERNAL_ROLES, PERSISTENT_ROLES, StepGraph, Value
from edge_runtime.export.operators import IN_PLACE
from edge_runtime.export.plan.frozen_residency import read_anew
from edge_runtime.export.plan.placing import Span, meet, place

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector of the kernels."""
_TOLERANCE = 1.002
"""An arena within this times what lives at once is as good as any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Bytes [offset, offset + size) of the arena, alive during each of `spans`, which are in order.

    A frozen tensor that is read anew has a span for every operation that takes it, all other tensors have one.
    """

    value: Value
    offset: int
    size: int
    spans: tuple[Span, ...]

    def alive_at(self, operation: int) -> bool:
        """Whether the bytes are this tensor's while `operation` runs."""
        return any(first <= operation <= last for first, last in self.spans)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArenaPlan:
    """Placements by root value; `live_bytes` is the largest sum alive at once, `peak` the operation where."""

    placements: dict[Value, Placement]
    arena_bytes: int
    live_bytes: int
    peak: int


@overload
def plan_arena(graph: StepGraph) -> ArenaPlan: ...
@overload
def plan_arena(graph: StepGraph, *, within_bytes: int) -> ArenaPlan | None: ...
def plan_arena(graph: StepGraph, *, within_bytes: int | None = None) -> ArenaPlan | None:
    """Alias what may be aliased (changes `storage` of values) and place every storage, frozen tensors among them.

    While the prefix runs, nearly everything that the active block will need is still free: frozen tensors are placed
    last, and among the others by the same orders only where that leaves gaps.

    None where the arena would be larger than `within_bytes`.
    """
    alias_in_place(graph)
    frozen: dict[Value, tuple[Span, ...]] = {
        value: tuple((at, at) for at in reads) for value, reads in read_anew(graph).items()
    }
    spans = {value: (span,) for value, span in storage_lifetimes(graph).items()} | frozen
    sizes = {value: _size(value) for value in spans}
    least = max(_live_bytes(spans, len(graph.operations), sizes.__getitem__), default=0)
    if within_bytes is not None and least > within_bytes:
        return None  # known before anything is placed
    live = _live_bytes(spans, len(graph.operations))
    peak = max(range(len(live)), key=live.__getitem__)
    orders: list[Callable[[Value], tuple[int, ...]]] = [
        lambda v: (-v.bytes, spans[v][0][0]),
        lambda v: (spans[v][0][0] - spans[v][-1][1], -v.bytes),
        lambda v: (-v.bytes * (spans[v][-1][1] - spans[v][0][0] + 1), spans[v][0][0]),
        lambda v: (0 if spans[v][0][0] <= peak <= spans[v][-1][1] else 1, -v.bytes, spans[v][0][0]),
    ]
    kept, anew = [v for v in spans if v not in frozen], sorted(frozen, key=lambda v: -v.bytes)
    best = _Best(spans, sizes, least)
    if within_bytes is not None and within_bytes > _TOLERANCE * live[peak]:
        # Larger arenas are given up early. Below the tolerance they still say whether to go on without it.
        best.below_bytes = within_bytes + 1
    for order in orders:
        best.try_order([*sorted(kept, key=order), *anew])
    if frozen and (not best.tried or best.arena_bytes > _TOLERANCE * live[peak]):
        for order in orders:
            best.try_order(sorted(spans, key=order))
    if not best.tried or (within_bytes is not None and best.arena_bytes > within_bytes):
        return None
    placements = {
        value: Placement(value=value, offset=offset, size=sizes[value], spans=spans[value])
        for value, offset in best.offsets.items()
    }
    _check(placements)
    return ArenaPlan(placements=placements, arena_bytes=best.arena_bytes, live_bytes=live[peak], peak=peak)


@dataclass(slots=True)
class _Best:
    """The smallest of the placements that were tried, the first among equals; none is smaller than `least`.

    Those that are not below `below_bytes` are given up; None accepts the first one, whatever its size.
    """

    spans: dict[Value, tuple[Span, ...]]
    sizes: dict[Value, int]
    least: int
    offsets: dict[Value, int] = field(default_factory=dict)
    arena_bytes: int = 0
    tried: bool = False
    below_bytes: int | None = None

    def try_order(self, order: list[Value]) -> None:
        """Place in this order, unless what is known cannot become smaller."""
        if self.tried and self.arena_bytes <= self.least:
            return
        offsets = place(order, self.spans, self.sizes, self.below_bytes)
        if offsets is not None:
            self.offsets, self.tried = offsets, True
            self.arena_bytes = max((offset + self.sizes[value] for value, offset in offsets.items()), default=0)
            self.below_bytes = self.arena_bytes


def alias_in_place(graph: StepGraph) -> None:
    """Let an output take over the storage of an argument that dies at the operation, where the kernel allows it."""
    last_read = _last_reads(graph)
    kept = {value.root for value in graph.outputs}
    for position, operation in enumerate(graph.operations):
        taken: set[Value] = set()
        for output_index, argument_index in IN_PLACE.get(operation.operator, ()):
            output, argument = operation.outputs[output_index], operation.arguments[argument_index]
            if output is None or output.storage is not None or not isinstance(argument, Value):
                continue
            root = argument.root
            if root in taken or root in kept or root.role in PERSISTENT_ROLES | EXTERNAL_ROLES:
                continue
            if last_read[root] != position or root.bytes != output.bytes or output.root in kept:
                continue
            if _read_elsewhere(operation.arguments, argument_index, root):
                continue
            output.storage = root
            taken.add(root)
            last_read[root] = max(position, last_read.get(output, position))


def _read_elsewhere(arguments: tuple[object, ...], index: int, root: Value) -> bool:
    return any(isinstance(a, Value) and a.root is root for i, a in enumerate(arguments) if i != index)


def _last_reads(graph: StepGraph) -> dict[Value, int]:
    last: dict[Value, int] = {}
    for position, operation in enumerate(graph.operations):
        for value in [*operation.reads, *operation.writes]:
            last[value.root] = position
            last[value] = position
    return last


def storage_lifetimes(graph: StepGraph) -> dict[Value, tuple[int, int]]:
    """First and last operation of every storage in the arena.

    State lives always, data from the begin, outputs to the end.
    """
    end = len(graph.operations) - 1
    lifetimes = {value.root: (0, end) for value in graph.state} | {value: (0, 0) for value in graph.data}
    for position, operation in enumerate(graph.operations):
        for value in [*operation.reads, *operation.writes]:
            root = value.root
            if root.role in EXTERNAL_ROLES or root.role in PERSISTENT_ROLES:
                continue
            first, _ = lifetimes.get(root, (position, position))
            lifetimes[root] = (first, position)
    for value in graph.outputs:
        lifetimes[value.root] = (lifetimes[value.root][0], end)
    return lifetimes


def aligned(size: int) -> int:
    """`size` rounded up to the alignment of the arena."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _live_bytes(
    spans: dict[Value, tuple[Span, ...]], operations: int, size: Callable[[Value], int] = attrgetter("bytes")
) -> list[int]:
    change = [0] * (operations + 1)
    for value, parts in spans.items():
        for first, last in parts:
            change[first] += size(value)
            change[last + 1] -= size(value)
    live, total = [], 0
    for delta in change[:operations]:
        total += delta
        live.append(total)
    return live


def _size(value: Value) -> int:
    return aligned(max(value.bytes, 1))


def _check(placements: dict[Value, Placement]) -> None:
    """Raise ExecutionError when two tensors that live at once overlap; a plan is never trusted unchecked."""
    ordered = sorted(placements.values(), key=lambda p: p.offset)
    offsets = np.array([p.offset for p in ordered], np.int64)
    first = np.array([p.spans[0][0] for p in ordered], np.int64)
    last = np.array([p.spans[-1][1] for p in ordered], np.int64)
    stops = np.searchsorted(offsets, [p.offset + p.size for p in ordered])
    for i, a in enumerate(ordered):
        behind = slice(i + 1, int(stops[i]))
        for j in np.flatnonzero((first[behind] <= last[i]) & (last[behind] >= first[i])):
            b = ordered[i + 1 + int(j)]
            if meet(a.spans, b.spans):
                raise ExecutionError(f"memory plan: {a.value.name} and {b.value.name} overlap")
