"""Plan the arena: what may be overwritten in place, when each tensor lives, and where it lies."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import overload

from device_profiles.errors import ExecutionError
from edge_runtime.export.ir.graph import EXTERNAL_ROLES, PERSISTENT_ROLES, StepGraph, Value
from edge_runtime.export.operators import IN_PLACE
from edge_runtime.export.plan.frozen_residency import read_anew

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector of the kernels."""
_TOLERANCE = 1.002
"""An arena within this times what lives at once is as good as any."""


_BEGIN = itemgetter(0)


Span = tuple[int, int]
"""First and last operation, inclusive."""


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
        offsets = _place(order, self.spans, self.sizes, self.below_bytes)
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


def _place(
    order: list[Value], spans: dict[Value, tuple[Span, ...]], sizes: dict[Value, int], below_bytes: int | None
) -> dict[Value, int] | None:
    """Lowest offset that is free during the whole lifetime (best fit by the order given).

    None as soon as the arena is known to be no smaller than `below_bytes`.
    """
    placed: dict[Value, int] = {}
    # Begin and end of the bytes, first and last operation, spans; bytes that follow each other and live at the same
    # time are one entry, or parameters and their momentum would be hundreds that every value is compared with.
    taken: list[tuple[int, int, int, int, tuple[Span, ...]]] = []
    for value in order:
        own = spans[value]
        first, last = own[0][0], own[-1][1]
        size = sizes[value]
        single = 1 if len(own) == 1 else 0
        offset = 0
        for begin, stop, start, end, parts in taken:
            if begin - offset >= size:
                break
            # Most pairs are told apart by their ends, and of two single spans that is all there is to know.
            if start <= last and first <= end and stop > offset and (len(parts) == single or _meet(parts, own)):
                offset = stop
        stop = offset + size
        if below_bytes is not None and stop >= below_bytes:
            return None
        placed[value] = offset
        _take(taken, (offset, stop, first, last, own))
    return placed


def _take(
    taken: list[tuple[int, int, int, int, tuple[Span, ...]]], entry: tuple[int, int, int, int, tuple[Span, ...]]
) -> None:
    """Insert an entry in the order of the first bytes, or make one of it and of the one before."""
    at = bisect_right(taken, entry[0], key=_BEGIN)
    if at > 0:
        begin, stop, first, last, parts = taken[at - 1]
        if stop == entry[0] and parts == entry[4]:
            taken[at - 1] = (begin, entry[1], first, last, parts)
            return
    taken.insert(at, entry)


def _meet(some: tuple[Span, ...], others: tuple[Span, ...]) -> bool:
    """Whether an operation is in both. Of two single spans that is seen at once."""
    if len(some) == len(others) == 1:
        return some[0][0] <= others[0][1] and others[0][0] <= some[0][1]
    return any(first <= end and begin <= last for first, last in some for begin, end in others)


def _check(placements: dict[Value, Placement]) -> None:
    """Raise ExecutionError when two tensors that live at once overlap; a plan is never trusted unchecked."""
    ordered = sorted(placements.values(), key=lambda p: p.offset)
    for i, a in enumerate(ordered):
        for b in ordered[i + 1 :]:
            if b.offset >= a.offset + a.size:
                break
            if _meet(a.spans, b.spans):
                raise ExecutionError(f"memory plan: {a.value.name} and {b.value.name} overlap")
