"""From observations of one program to its cost, with every byte accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from device_profiles.manifest import MemoryPlan, Program
from device_profiles.profile import Cost
from device_profiles.timeline import PlanTimeline
from profiler.measure.program import Observation


def cost_of(
    program: Program,
    observations: Sequence[Observation],
    *,
    base_bytes: Callable[[], int],
    threads: int,
    plan: PlanTimeline | None = None,
) -> Cost:
    """The cost of `program`; the peak is the largest of the repetitions, seconds are their median and range.

    `base_bytes` is asked only where no repetition lived to report its own. Seconds are None where the process does
    not report them (evaluations).
    """
    reports = [o.report for o in observations if o.report is not None]
    failed = next((o for o in observations if o.reason is not None), None)
    fits = failed is None and bool(reports)
    memory = program.memory if not reports or "counted" not in reports[-1] else _counted(reports[-1]["counted"])
    base = max(int(r["base_bytes"]) for r in reports) if reports else base_bytes()
    workspace = memory.workspace_bytes_per_thread * threads
    predicted = base + memory.arena_bytes + memory.frozen_bytes + workspace + memory.staging_bytes
    lived = reports if fits else []
    measured = max((int(r["measured_peak_bytes"]) for r in lived), default=None)
    last = observations[-1]
    peak, file = (last.watched.peak_bytes, last.watched.file_bytes) if last.watched is not None else (None, None)
    return Cost(
        program=program.name,
        work=program.work,
        block=program.block,
        fits=fits,
        predicted_peak_bytes=predicted,
        measured_peak_bytes=measured,
        base_bytes=base,
        arena_bytes=memory.arena_bytes,
        parameters_bytes=memory.parameters_bytes,
        gradients_bytes=memory.gradients_bytes,
        optimizer_state_bytes=memory.optimizer_state_bytes,
        activations_bytes=memory.activations_bytes,
        temporaries_bytes=memory.temporaries_bytes,
        frozen_bytes=memory.frozen_bytes,
        workspace_bytes=workspace,
        staging_bytes=memory.staging_bytes,
        unexplained_bytes=None if measured is None else measured - predicted,
        step_seconds_median=_over(median, lived, "step_seconds_median"),
        step_seconds_minimum=_over(min, lived, "step_seconds_minimum"),
        step_seconds_maximum=_over(max, lived, "step_seconds_maximum"),
        prefix_seconds=_over(median, lived, "prefix_seconds"),
        reason=failed.reason if failed is not None else None,
        batch=program.batch,
        micro_batch=program.micro_batch,
        variant=program.variant,
        instructions=program.instructions,
        frozen_tensors=program.frozen_tensors,
        loads=program.loads,
        measured_peak_minimum_bytes=_whole(min, lived, "measured_peak_bytes"),
        base_minimum_bytes=_whole(min, lived, "base_bytes"),
        anonymous_bytes=None if peak is None or file is None else min(peak - file, measured or peak),
        file_bytes=file,
        proportional_bytes=_seen([o.watched.proportional_bytes for o in observations if o.watched], measured),
        swapped_bytes=_seen([o.watched.swapped_bytes for o in observations if o.watched]),
        cgroup_peak_bytes=_seen([o.cgroup_peak_bytes for o in observations]),
        died_at_bytes=failed.died_at_bytes if failed is not None else None,
        minor_faults=_seen([o.minor_faults for o in observations]),
        major_faults=_seen([o.major_faults for o in observations]),
        accelerator_allocated_bytes=_whole(max, lived, "accelerator_allocated_bytes"),
        accelerator_reserved_bytes=_whole(max, lived, "accelerator_reserved_bytes"),
        accelerator_process_bytes=_whole(max, lived, "accelerator_process_bytes"),
        host_peak_bytes=_whole(max, lived, "host_peak_bytes"),
        conditions=last.conditions,
        timeline=last.timeline,
        plan=plan,
    )


def _counted(parts: dict[str, int]) -> MemoryPlan:
    """What a process without a plan counted of itself, as a plan: the arena is the sum of what would lie in it."""
    arena = sum(parts[f"{name}_bytes"] for name in ("parameters", "gradients", "optimizer_state", "activations"))
    return MemoryPlan(
        arena_bytes=arena,
        live_bytes=arena,
        workspace_bytes_per_thread=0,
        temporaries_bytes=0,
        **parts,
    )


def _over(combine: Callable[[list[float]], float], reports: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [float(report[key]) for report in reports if report.get(key) is not None]
    return combine(values) if values else None


def _whole(combine: Callable[[list[int]], int], reports: Sequence[dict[str, Any]], key: str) -> int | None:
    values = [int(report[key]) for report in reports if report.get(key) is not None]
    return combine(values) if values else None


def _seen(values: Sequence[int | None], at_most: int | None = None) -> int | None:
    """The largest of what was seen. A sum of shares can exceed the peak by what the kernel rounds; it is cut there."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return max(known) if at_most is None else min(max(known), at_most)
