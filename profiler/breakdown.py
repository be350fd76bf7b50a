"""From observations of one program to its cost, with every byte accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from device_profiles.bundle import Program
from device_profiles.profile import Cost
from profiler.measure import Observation


def cost_of(
    program: Program, observations: Sequence[Observation], *, base_bytes: Callable[[], int], threads: int
) -> Cost:
    """The cost of `program`; the peak is the largest of the repetitions, seconds are their median and range.

    `base_bytes` is asked only where no repetition lived to report its own. Seconds are None where the process does
    not report them (evaluations).
    """
    memory = program.memory
    reports = [o.report for o in observations if o.report is not None]
    failed = next((o.reason for o in observations if o.reason is not None), None)
    fits = failed is None and bool(reports)
    base = max(int(r["base_bytes"]) for r in reports) if reports else base_bytes()
    workspace = memory.workspace_bytes_per_thread * threads
    predicted = base + memory.arena_bytes + memory.frozen_bytes + workspace + memory.staging_bytes
    measured = max(int(r["measured_peak_bytes"]) for r in reports) if fits else None
    timed = reports if fits else []
    return Cost(
        program=program.name,
        purpose=program.purpose,
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
        step_seconds_median=_over(median, timed, "step_seconds_median"),
        step_seconds_minimum=_over(min, timed, "step_seconds_minimum"),
        step_seconds_maximum=_over(max, timed, "step_seconds_maximum"),
        prefix_seconds=_over(median, timed, "prefix_seconds"),
        reason=failed,
    )


def _over(combine: Callable[[list[float]], float], reports: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [float(report[key]) for report in reports if report.get(key) is not None]
    return combine(values) if values else None
