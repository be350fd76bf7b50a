"""What a command reports: the numbers of a run as one JSON object."""

from __future__ import annotations

import time

import msgspec

from device_profiles.contract import LimitKind
from edge_runtime.device.engine import Engine
from edge_runtime.device.process import page_faults, peak_resident_bytes, resident_parts


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `train` and `bench` print with `--json`. Seconds are of this process; None where it made no step.

    `anonymous_bytes` and `file_bytes` are resident at the end; `first_step` is when the first step that was timed
    began and ended on the clock of `time.monotonic`, which all processes of a machine share.
    """

    block: int
    program: str
    steps: int
    examples: int
    loss_first: float | None
    loss_last: float | None
    step_seconds_median: float | None
    step_seconds_minimum: float | None
    step_seconds_maximum: float | None
    prefix_seconds: float | None
    predicted_peak_bytes: int
    measured_peak_bytes: int
    base_bytes: int
    arena_bytes: int
    frozen_bytes: int
    workspace_bytes: int
    staging_bytes: int
    threads: int
    instruction_set: str
    interrupted: bool
    resumed_from: int
    output: str | None
    limit_bytes: int | None
    limit_kind: LimitKind
    anonymous_bytes: int
    file_bytes: int
    minor_faults: int
    major_faults: int
    first_step: tuple[float, float] | None


class StepTimes:
    """Seconds of steps and of their frozen prefixes."""

    def __init__(self) -> None:
        self._total: list[float] = []
        self._prefix: list[float] = []
        self._first: tuple[float, float] | None = None

    def add(self, total: float, prefix: float) -> None:
        """Record one step that has just ended."""
        if self._first is None:
            now = time.monotonic()
            self._first = (now - total, now)
        self._total.append(total)
        self._prefix.append(prefix)

    def report(
        self,
        engine: Engine,
        *,
        steps: int,
        examples: int,
        loss_first: float | None,
        loss_last: float | None,
        interrupted: bool = False,
        resumed_from: int = 0,
        output: str | None = None,
        limit_bytes: int | None = None,
        limit_kind: LimitKind = "none",
    ) -> StepReport:
        """The report of a run on `engine`; the measured peak is the process's so far."""
        memory = engine.program.memory
        anonymous, file = resident_parts()
        minor, major = page_faults()
        return StepReport(
            block=engine.program.block,
            program=engine.program.name,
            steps=steps,
            examples=examples,
            loss_first=loss_first,
            loss_last=loss_last,
            step_seconds_median=_median(self._total),
            step_seconds_minimum=min(self._total, default=None),
            step_seconds_maximum=max(self._total, default=None),
            prefix_seconds=_median(self._prefix),
            predicted_peak_bytes=engine.predicted_peak_bytes,
            measured_peak_bytes=peak_resident_bytes(),
            base_bytes=engine.base_bytes,
            arena_bytes=engine.arena_bytes,
            frozen_bytes=memory.frozen_bytes,
            workspace_bytes=memory.workspace_bytes_per_thread * engine.threads,
            staging_bytes=memory.staging_bytes,
            threads=engine.threads,
            instruction_set=engine.instruction_set,
            interrupted=interrupted,
            resumed_from=resumed_from,
            output=output,
            limit_bytes=limit_bytes,
            limit_kind=limit_kind,
            anonymous_bytes=anonymous,
            file_bytes=file,
            minor_faults=minor,
            major_faults=major,
            first_step=self._first,
        )


def _median(values: list[float]) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
