"""Choose among variants of one program the one that needs the fewest bytes for the least extra work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from device_profiles.errors import UsageError
from device_profiles.sizes import MEGABYTE
from edge_runtime.export.ir.graph import StepGraph
from edge_runtime.export.plan.arena import ArenaPlan, plan_arena
from edge_runtime.export.step.train_step import StepVariant

_MOST_PARTS = 4
"""Frozen layers run in at most so many parts: each one packs the weights again, and small ones do not fill threads."""
_TOLERANCE = 1.002
"""A variant that does less work is taken when it costs no more than this times the smallest arena."""

Build = Callable[[StepVariant], StepGraph]
Rows = Literal["prefix_rows", "teacher_rows"]
"""Which frozen layers may run on fewer examples at a time than the batch has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A variant with its graph and its plan."""

    variant: StepVariant
    graph: StepGraph
    plan: ArenaPlan


def fewest_bytes(
    build: Build,
    variant: StepVariant,
    *,
    batch: int,
    block: int,
    rows: Rows = "prefix_rows",
    recompute_bytes: int | None = None,
    checkpoints: frozenset[str] = frozenset(),
) -> Planned:
    """The smallest arena over the numbers of examples that the frozen layers may run on at once.

    With `recompute_bytes` layers are computed again in the backward pass, as few of them as keep the arena within that;
    `checkpoints` are outputs worth keeping instead. Raises UsageError, naming `block`, where it cannot be reached.
    """
    planned = best_rows(build, variant, batch, rows)
    if recompute_bytes is None or planned.plan.arena_bytes <= recompute_bytes:
        return planned
    everything = everything_again(build, planned, checkpoints)
    within = least_again(build, everything, recompute_bytes)
    if within is None:
        # Chains of layers from the block's input on, for every reader: thousands of operations, where nothing else will
        # do.
        chains = replace(planned.variant, recompute=frozenset(planned.graph.kept), keep=frozenset(), forgetful=True)
        last = plan_variant(build, chains)
        within = least_again(build, [last], recompute_bytes)
        everything.append(last)
    if within is None:
        smallest = min(candidate.plan.arena_bytes for candidate in everything)
        least = f"the arena of block {block} needs {smallest / MEGABYTE:.1f} MB"
        raise UsageError(
            f"{least} even when everything is computed again",
            field="recompute",
            value=f"{recompute_bytes / MEGABYTE:.1f}MB",
            remedy="give more, or export a smaller batch, micro-batch or block",
        )
    return within


def best_rows(build: Build, variant: StepVariant, batch: int, rows: Rows = "prefix_rows") -> Planned:
    """The smallest arena over the numbers of examples that the frozen layers may run on at once.

    One that costs no more than the tolerance above the smallest is taken if it runs on more examples at once.
    """
    most = plan_variant(build, variant)
    if not any(value.role == "frozen" for value in most.graph.inputs):
        return most
    counts = [batch // parts for parts in (2, _MOST_PARTS) if batch // parts >= 1]
    fewer = [
        replace(variant, prefix_rows=count) if rows == "prefix_rows" else replace(variant, teacher_rows=count)
        for count in counts
    ]
    # Most often all are as large, which is known before they are built or placed.
    below = _below_tolerance(most.plan.arena_bytes)
    if rows == "prefix_rows" and _live_behind_the_prefix(most) > below:
        return most
    if all(plan_arena(build(candidate), within_bytes=below) is None for candidate in fewer):
        return most
    candidates = [most, *(plan_variant(build, candidate) for candidate in fewer)]
    smallest = min(candidate.plan.arena_bytes for candidate in candidates)
    return next(c for c in candidates if c.plan.arena_bytes <= smallest * _TOLERANCE)


def _live_behind_the_prefix(planned: Planned) -> int:
    """The most bytes that live at once after the prefix, however many examples it runs on: no arena is smaller."""
    first, count = planned.graph.prefix_operations, len(planned.graph.operations)
    change = [0] * (count + 1)
    for placement in planned.plan.placements.values():
        for begin, end in placement.spans:
            if end >= first:
                change[max(begin, first)] += placement.size
                change[end + 1] -= placement.size
    return max(accumulate(change[first:]), default=0)


def _below_tolerance(arena_bytes: int) -> int:
    """The largest arena beside which one of `arena_bytes` is too large to be taken."""
    below = int(arena_bytes / _TOLERANCE) + 1
    while arena_bytes <= below * _TOLERANCE:
        below -= 1
    return below


def plan_variant(build: Build, variant: StepVariant) -> Planned:
    """Build and plan one variant."""
    graph = build(variant)
    return Planned(variant=variant, graph=graph, plan=plan_arena(graph))


def everything_again(build: Build, planned: Planned, checkpoints: frozenset[str]) -> list[Planned]:
    """Everything computed again: from the checkpoints, held for the next reader or not, or once from the block's
    input."""
    return [plan_variant(build, variant) for variant in _ways_of_everything(planned, checkpoints)]


def smallest_again(build: Build, planned: Planned, checkpoints: frozenset[str]) -> Planned | None:
    """The smallest of them, the first among equals; None where none is smaller than `planned`."""
    smallest, below = None, planned.plan.arena_bytes
    for variant in _ways_of_everything(planned, checkpoints):
        graph = build(variant)
        plan = plan_arena(graph, within_bytes=below - 1)
        if plan is not None:
            smallest, below = Planned(variant=variant, graph=graph, plan=plan), plan.arena_bytes
    return smallest


def _ways_of_everything(planned: Planned, checkpoints: frozenset[str]) -> list[StepVariant]:
    everything = replace(planned.variant, recompute=frozenset(planned.graph.kept))
    ways = ((checkpoints, False), (checkpoints, True), (frozenset[str](), False))
    return [replace(everything, keep=keep, forgetful=forgetful) for keep, forgetful in ways]


def least_again(build: Build, everything: list[Planned], budget_bytes: int) -> Planned | None:
    """As few operations again as keep the arena within the budget; `everything` are steps that compute all again.

    None where the budget is too small for every one of them.
    """
    within = [candidate for candidate in everything if candidate.plan.arena_bytes <= budget_bytes]
    relaxed = [_relaxed(build, candidate, budget_bytes) for candidate in within]
    return min(relaxed, key=lambda candidate: len(candidate.graph.operations), default=None)


def _relaxed(build: Build, planned: Planned, budget_bytes: int) -> Planned:
    """Keep layers again, in the order of the model, wherever the arena stays within the budget."""
    for name in planned.graph.recomputed:
        variant = replace(planned.variant, recompute=planned.variant.recompute - {name})
        graph = build(variant)
        plan = plan_arena(graph, within_bytes=budget_bytes)
        if plan is not None:
            planned = Planned(variant=variant, graph=graph, plan=plan)
    return planned
