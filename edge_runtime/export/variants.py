"""Choose among variants of one program the one that needs the fewest bytes for the least extra work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from device_profiles.errors import UsageError
from edge_runtime.export.graph import StepGraph
from edge_runtime.export.memory_plan import ArenaPlan, plan_arena
from edge_runtime.export.train_step import StepVariant

_MOST_PARTS = 4
"""Frozen layers run in at most so many parts: each one packs the weights again, and small ones do not fill threads."""
_TOLERANCE = 1.002
"""A variant that does less work is taken when it costs no more than this times the smallest arena."""

Build = Callable[[StepVariant], StepGraph]


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A variant with its graph and its plan."""

    variant: StepVariant
    graph: StepGraph
    plan: ArenaPlan


def fewest_bytes(build: Build, variant: StepVariant, *, batch: int, recompute_bytes: int | None = None) -> Planned:
    """The smallest arena over the numbers of examples that the frozen layers may run on at once.

    With `recompute_bytes` layers are computed again in the backward pass, one after the other, the one that saves most
    bytes first, until the arena is no larger. Raises UsageError where that cannot be reached.
    """
    planned = _best_rows(build, variant, batch)
    while recompute_bytes is not None and planned.plan.arena_bytes > recompute_bytes:
        better = _recompute_one_more(build, planned)
        if better is None:
            raise UsageError(
                f"--recompute {recompute_bytes}: the arena of this program needs {planned.plan.arena_bytes} bytes even "
                "with recomputation; give more, or export a smaller batch or block"
            )
        planned = better
    return planned


def _best_rows(build: Build, variant: StepVariant, batch: int) -> Planned:
    candidates = [plan_variant(build, variant)]
    rows = batch // 2
    while rows >= max(1, batch // _MOST_PARTS) and any(value.role == "frozen" for value in candidates[0].graph.inputs):
        candidates.append(plan_variant(build, replace(variant, prefix_rows=rows)))
        rows //= 2
    smallest = min(candidate.plan.arena_bytes for candidate in candidates)
    return next(c for c in candidates if c.plan.arena_bytes <= smallest * _TOLERANCE)


def plan_variant(build: Build, variant: StepVariant) -> Planned:
    """Build and plan one variant."""
    graph = build(variant)
    return Planned(variant=variant, graph=graph, plan=plan_arena(graph))


def _recompute_one_more(build: Build, planned: Planned) -> Planned | None:
    """The best of all that recompute one layer more; None where none lowers the pressure."""
    best = planned
    for name in planned.graph.kept:
        candidate = plan_variant(build, replace(planned.variant, recompute=planned.variant.recompute | {name}))
        if candidate.plan.pressure < best.plan.pressure:
            best = candidate
    return None if best is planned else best
