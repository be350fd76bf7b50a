"""Plan the arena: what may be overwritten in place, when each tensor lives, and where it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_profiles.errors import ExecutionError
from edge_runtime.export.ir.graph import EXTERNAL_ROLES, PERSISTENT_ROLES, StepGraph, Value
from edge_runtime.export.operators import IN_PLACE
from edge_runtime.export.plan.frozen_residency import read_anew

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector of the kernels."""
_TOLERANCE = 1.002
"""An arena within this times what lives at once is as good as any."""


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


def plan_arena(graph: StepGraph) -> ArenaPlan:
    """Alias what may be aliased (changes `storage` of values) and place every storage, frozen tensors among them.

    While the prefix runs, nearly everything that the active block will need is still free: frozen tensors are placed
    last, and among the others by the same orders only where that leaves gaps.
    """
    alias_in_place(graph)
    frozen: dict[Value, tuple[Span, ...]] = {
        value: tuple((at, at) for at in reads) for value, reads in read_anew(graph).items()
    }
    spans = {value: (span,) for value, span in storage_lifetimes(graph).items()} | frozen
    live = _live_bytes(spans, len(graph.operations))
    peak = max(range(len(live)), key=live.__getitem__)
    orders: list[Callable[[Value], tuple[int, ...]]] = [
        lambda v: (-v.bytes, spans[v][0][0]),
        lambda v: (spans[v][0][0] - spans[v][-1][1], -v.bytes),
        lambda v: (-v.bytes * (spans[v][-1][1] - spans[v][0][0] + 1), spans[v][0][0]),
        lambda v: (0 if spans[v][0][0] <= peak <= spans[v][-1][1] else 1, -v.bytes, spans[v][0][0]),
    ]
    kept, anew = [v for v in spans if v not in frozen], sorted(frozen, key=lambda v: -v.bytes)
    candidates = [_place([*sorted(kept, key=order), *anew], spans) for order in orders]
    if frozen and min(map(_arena_bytes, candidates)) > _TOLERANCE * live[peak]:
        candidates += [_place(sorted(spans, key=order), spans) for order in orders]
    placements = min(candidates, key=_arena_bytes)
    _check(placements)
    return ArenaPlan(placements=placements, arena_bytes=_arena_bytes(placements), live_bytes=live[peak], peak=peak)


def _arena_bytes(placements: dict[Value, Placement]) -> int:
    return max((p.offset + p.size for p in placements.values()), default=0)


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


def _live_bytes(spans: dict[Value, tuple[Span, ...]], operations: int) -> list[int]:
    change = [0] * (operations + 1)
    for value, parts in spans.items():
        for first, last in parts:
            change[first] += value.bytes
            change[last + 1] -= value.bytes
    live, total = [], 0
    for delta in change[:operations]:
        total += delta
        live.append(total)
    return live


def _place(order: list[Value], spans: dict[Value, tuple[Span, ...]]) -> dict[Value, Placement]:
    """Lowest offset that is free during the whole lifetime (best fit by the order given)."""
    placed: dict[Value, Placement] = {}
    taken: list[tuple[int, int, Placement]] = []  # first and last operation of each: most pairs are told apart by these
    for value in order:
        first, last = spans[value][0][0], spans[value][-1][1]
        size = aligned(max(value.bytes, 1))
        near = [p for begin, end, p in taken if begin <= last and first <= end]
        busy = sorted((p.offset, p.offset + p.size) for p in near if _meet(p.spans, spans[value]))
        offset = 0
        for begin, stop in busy:
            if begin - offset >= size:
                break
            offset = max(offset, stop)
        placed[value] = Placement(value=value, offset=offset, size=size, spans=spans[value])
        taken.append((first, last, placed[value]))
    return placed


def _meet(some: tuple[Span, ...], others: tuple[Span, ...]) -> bool:
    """Whether an operation is in both. Of two single spans that are not apart at their ends this is known."""
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
