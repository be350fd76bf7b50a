"""Predict the peak of a training process and the seconds of a step: from a memory plan and a device's profile.

The plan says what a program needs beside the runtime's base. What it does not say was measured on the device: the
base itself, and by how much processes differ from base and plan (pages of the workspace that a small program never
touches, the runtime's own structures). That difference is interpolated over the size of the plan between the programs
that were measured. It is below one megabyte or two; the rest is arithmetic. Seconds follow from the program's loads
(`seconds.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import msgspec

from device_profiles.contract import CACHED_PREFIX_VARIANT
from device_profiles.costs import RunCost
from device_profiles.errors import FormatError
from device_profiles.loads import same_work
from device_profiles.manifest import Program
from device_profiles.profile import Cost, DeviceProfile
from device_profiles.seconds import Speed, fit_speed

MARGIN_BYTES = 4 << 20
"""What a promise adds to a prediction. Half of it is for what differs from program to program. The other half is for
the kernel: beside resident memory a control group charges page tables, stacks and other structures of the process, what
each processor holds in reserve, and pages of files that cannot be given back at once; on the machine of the docs
trainings died with less than 1.5 MB of it."""

BYTES_PER_EXAMPLE = 48
"""Label, place in the file, order, the next epoch's order and its keys while it is sorted: eight bytes each, and
eight for a copy. Data sets of some thousand examples need less; the profiler's own have some hundred."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Peak of the training process in bytes. A limit of `high_bytes` is kept; a promise (`promised.py`) is no less.

    `low_bytes`: a process with a lower peak would mean that the plan is wrong. `calibrated_by` names the programs
    whose measurements stand behind it. `seconds_per_step` is None where the profile was taken with other threads, or
    with programs of a release that did not state their loads.
    """

    program: str
    peak_bytes: int
    low_bytes: int
    high_bytes: int
    base_bytes: int
    plan_bytes: int
    correction_bytes: int
    calibrated_by: tuple[str, ...]
    seconds_per_step: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the measurements of a device say: base, correction by the size of the plan (rising), and speed."""

    base_bytes: int
    base_spread_bytes: int
    plan_bytes: tuple[int, ...]
    correction_bytes: tuple[int, ...]
    programs: tuple[str, ...]
    speed: Speed | None = None

    def correction(self, plan_bytes: int) -> int:
        """Difference between processes and base + plan at this size; beyond the measured sizes that of the nearest."""
        sizes = self.plan_bytes
        right = bisect_left(sizes, plan_bytes)
        if right == 0:
            return self.correction_bytes[0]
        if right == len(sizes):
            return self.correction_bytes[-1]
        below, above = self.correction_bytes[right - 1], self.correction_bytes[right]
        share = (plan_bytes - sizes[right - 1]) / (sizes[right] - sizes[right - 1])  # of two that differ
        return round(below + share * (above - below))


def calibrate(costs: Sequence[Cost], source: str = "profile") -> Calibration:
    """Calibrate from the training programs among `costs` that fitted; raises FormatError where there is none.

    Those that read a cache of the prefix are left out: they were measured without what training adds to the base.
    """
    used = sorted(
        (
            cost
            for cost in costs
            if cost.work.trains and cost.variant != CACHED_PREFIX_VARIANT and cost.measured_peak_bytes
        ),
        key=_plan_bytes,
    )
    if not used:
        raise FormatError(f"{source}: costs: no training program was measured; run profl-profile on the device")
    bases = [cost.base_bytes for cost in used]
    base = round(median(bases))
    return Calibration(
        base_bytes=base,
        base_spread_bytes=max(bases) - min([*bases, *(c.base_minimum_bytes or c.base_bytes for c in used)]),
        plan_bytes=tuple(_plan_bytes(cost) for cost in used),
        correction_bytes=tuple((cost.measured_peak_bytes or 0) - cost.base_bytes - _plan_bytes(cost) for cost in used),
        programs=tuple(cost.program for cost in used),
        speed=fit_speed([(cost.loads, cost.step_seconds_median) for cost in used if cost.step_seconds_median]),
    )


def predict(
    program: Program | RunCost,
    profile: DeviceProfile,
    *,
    examples: int = 0,
    threads: int | None = None,
    calibration: Calibration | None = None,
) -> Prediction:
    """Predict the peak of training `program` on the device of `profile`, and the seconds of a step.

    Args:
        program: of any bundle of the release that was profiled, measured or not; or a run of units that has none yet.
        profile: of the native runtime, with at least one training program that fitted.
        examples: size of the data set, for one of many thousand examples.
        threads: of the training; those of the profile by default.
        calibration: of `profile.costs`, where many programs are predicted from one profile.

    Seconds that were measured win over those that are predicted. Raises FormatError where the profile says nothing
    about training with the native runtime.
    """
    if profile.runtime != "native":
        raise FormatError("profile: runtime is torch, whose processes have no plan; profile the native runtime")
    known = calibrate(profile.costs) if calibration is None else calibration
    used = threads if threads is not None else profile.measurement.threads
    memory = program.memory if isinstance(program, Program) else program
    plan = memory.total_bytes(used)
    data = BYTES_PER_EXAMPLE * examples
    correction = known.correction(plan)
    peak = known.base_bytes + plan + correction + data
    # A process may touch nothing of its workspace; more than planned it never takes.
    untouched = memory.workspace_bytes_per_thread * profile.measurement.threads
    return Prediction(
        program=program.name,
        peak_bytes=peak,
        low_bytes=max(peak - known.base_spread_bytes - MARGIN_BYTES - untouched - data, 0),
        high_bytes=peak + known.base_spread_bytes + MARGIN_BYTES,
        base_bytes=known.base_bytes,
        plan_bytes=plan,
        correction_bytes=correction,
        calibrated_by=known.programs,
        seconds_per_step=_seconds(program, profile, known) if used == profile.measurement.threads else None,
    )


def _seconds(program: Program | RunCost, profile: DeviceProfile, known: Calibration) -> float | None:
    if known.speed is None or not program.loads:
        return None
    measured = profile.cost(program.name)
    if measured is not None and same_work(measured.loads, program.loads) and measured.step_seconds_median is not None:
        return measured.step_seconds_median
    return known.speed.seconds(program.loads)


def _plan_bytes(cost: Cost) -> int:
    return cost.arena_bytes + cost.frozen_bytes + cost.workspace_bytes + cost.staging_bytes
