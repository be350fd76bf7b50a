"""What a command reports: the numbers of a run as one JSON object, and as a table."""

from __future__ import annotations

import time

from edge_runtime.device.worker.text import megabytes, megabytes_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.device.worker.job import Job
    from edge_runtime.device.worker.loaded_program import LoadedProgram

_KEPT_STEPS = 4096
_SMOOTHED_STEPS = 20


class StepTimes:
    """Seconds of steps and of their frozen prefixes; the median is that of the latest 4096.

    `first` is when the first step began and ended on the clock that all processes of the machine share.
    """

    def __init__(self) -> None:
        self._total: list[float] = []
        self._prefix: list[float] = []
        self._count = 0
        self.first: tuple[float, float] | None = None
        self.minimum: float | None = None
        self.maximum: float | None = None

    def rehearse(self) -> None:
        """What recording a step and asking for the median take, on times of its own."""
        times = StepTimes()
        times.add(0.5, 0.25)
        times.add(0.5, 0.25)
        f"{times.median():.4f} {times.minimum:.4f}"

    def add(self, total: float, prefix: float) -> None:
        """Record one step that has just ended."""
        if self.first is None:
            now = time.monotonic()
            self.first = (now - total, now)
        if self._count < _KEPT_STEPS:
            self._total.append(total)
            self._prefix.append(prefix)
        else:
            self._total[self._count % _KEPT_STEPS] = total
            self._prefix[self._count % _KEPT_STEPS] = prefix
        self._count += 1
        self.minimum = total if self.minimum is None else min(self.minimum, total)
        self.maximum = total if self.maximum is None else max(self.maximum, total)

    def median(self) -> float | None:
        """Seconds of a step, None before the first."""
        return _median(self._total)

    def prefix_median(self) -> float | None:
        """Seconds of the frozen prefix, None before the first step."""
        return _median(self._prefix)


def smoothed(before: float | None, loss: float, count: int) -> float:
    """The mean of `count` losses, of which `loss` is the last; of many, the latest 20 or so weigh in it."""
    return loss if before is None else before + (loss - before) * max(1 / count, 1 / _SMOOTHED_STEPS)


def step_report(
    native: Any,
    job: Job,
    loaded: LoadedProgram,
    times: StepTimes,
    *,
    steps: int,
    examples: int,
    loss_first: float | None,
    loss_last: float | None,
    loss_smoothed: float | None = None,
    **more: object,
) -> dict[str, object]:
    """What `train` and `bench` print with `--json`. Seconds are of this process; None where it made no step."""
    memory = loaded.program["memory"]
    defaults: dict[str, object] = {"interrupted": False, "resumed_from": 0, "output": None, "cache_bytes": None}
    limits: dict[str, object] = {"limit_bytes": job["limit_bytes"], "limit_kind": job["limit_kind"]}
    return {
        "block": loaded.program["block"],
        "program": loaded.program["name"],
        "steps": steps,
        "examples": examples,
        "loss_first": loss_first,
        "loss_last": loss_last,
        "loss_smoothed": loss_smoothed,
        "step_seconds_median": times.median(),
        "step_seconds_minimum": times.minimum,
        "step_seconds_maximum": times.maximum,
        "prefix_seconds": times.prefix_median(),
        "first_step": times.first,
        "predicted_peak_bytes": loaded.predicted_bytes,
        "measured_peak_bytes": native.peak_resident_bytes(),
        "swapped_bytes": swapped_bytes(),
        "base_bytes": loaded.base_bytes,
        "arena_bytes": loaded.arena_bytes,
        "frozen_bytes": memory["frozen"],
        "workspace_bytes": memory["workspace_per_thread"] * job["threads"],
        "staging_bytes": memory["staging"],
        "threads": job["threads"],
        "instruction_set": loaded.instruction_set,
        **defaults,
        **limits,
        **more,
    }


def step_table(report: dict[str, Any]) -> str:
    """The report of `train` for people."""
    state = "interrupted" if report["interrupted"] else "stopped early" if report["stopped_early"] else "done"
    lines = [f"block {report['block']} ({report['program']}): {report['steps']} steps, {state}"]
    if report["loss_last"] is not None:
        lines.append(f"loss           {report['loss_first']:.4f} -> {report['loss_last']:.4f} (first and last batch)")
    if report["loss_smoothed"] is not None:
        lines.append(f"smoothed loss  {report['loss_smoothed']:.4f} (latest batches)")
    if report["step_seconds_median"] is not None:
        prefix = report["prefix_seconds"] or 0
        lines.append(f"step           {report['step_seconds_median']:.4f} s (prefix {prefix:.4f} s)")
    lines.append(f"promised peak  {megabytes_up(report['predicted_peak_bytes'])}")
    lines.append(f"measured peak  {megabytes(report['measured_peak_bytes'])} (limit: {report['limit_kind']})")
    if report["swapped_bytes"]:
        lines.append(f"swapped out    {megabytes(report['swapped_bytes'])}, which the peak does not count")
    if report["cache_bytes"] is not None:
        lines.append(f"prefix cache   {megabytes(report['cache_bytes'])} on disk")
    lines += initial_line(report["initial_blocks"])
    if report["output"] is not None:
        lines.append(f"update         {report['output']}")
    elif not report["interrupted"]:
        lines.append("update         none: without -o, the result of this training is not kept")
    return "\n".join(lines)


def swapped_bytes() -> int | None:
    """Of this process, in swap of any kind (zram too) now; None where the kernel does not tell."""
    try:
        with open("/proc/self/status", "rb") as file:
            _, found, rest = file.read().partition(b"\nVmSwap:")
    except OSError:
        return None
    return int(rest.split(None, 1)[0]) << 10 if found else None


def initial_line(blocks: list[int]) -> list[str]:
    """What frozen or evaluated blocks nobody trained, if there are some."""
    return [f"initial values block{'s' * (len(blocks) > 1)} {', '.join(map(str, blocks))}"] if blocks else []


def _median(values: list[float]) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
