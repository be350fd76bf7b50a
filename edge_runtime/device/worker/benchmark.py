"""Time and memory of training steps on synthetic data, for the profiler."""

from __future__ import annotations

from device_profiles.errors import FormatError
from edge_runtime.device.worker.loaded_program import LoadedProgram
from edge_runtime.device.worker.progress import ProgressLine
from edge_runtime.device.worker.report import StepTimes, step_report
from edge_runtime.device.worker.text import megabytes, megabytes_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.device.worker.job import Job


def base_bytes(native: Any, job: Job) -> int:
    """The base of the program: its arena is made, which takes no memory, and never touched."""
    loaded = LoadedProgram(native, job["program"], job)
    loaded.promise(StepTimes().rehearse)
    return loaded.base_bytes


def bench(native: Any, job: Job) -> tuple[dict[str, object] | None, str, int]:
    """Train on one batch that repeats; steps of the warm-up are made, but not timed."""
    program = job["program"]
    loaded = LoadedProgram(native, program, job)
    if loaded.data is None:
        raise FormatError(f"{program['path']}: takes no images")
    times = StepTimes()
    loaded.promise(times.rehearse)
    loaded.load_tensors()
    if loaded.labels is not None:
        label_format: Any = loaded.labels.format
        labels = loaded.labels.cast("B").cast(label_format)
        for position in range(len(labels)):
            labels[position] = position % job["classes"]
    losses: list[float] = []
    line = ProgressLine(job["steps"])
    for step in range(-job["warmup_steps"], job["steps"]):
        loss = total = prefix = 0.0
        for hyperparameters in job["hyperparameters"]:
            _fill(native, loaded.data, job["vocabulary"])
            loaded.set_hyperparameters(hyperparameters)
            seconds = loaded.execute()
            loss += loaded.output()[()]
            total, prefix = total + seconds[0], prefix + seconds[1]
        losses = [*losses[:1], loss]
        if step >= 0:
            times.add(total, prefix)
            line.update(step + 1, f"{total:.3f} s")
    line.close()
    report = step_report(
        native,
        job,
        loaded,
        times,
        steps=job["steps"],
        examples=program["batch"],
        loss_first=losses[0],
        loss_last=losses[-1],
    )
    table = [
        f"block {program['block']} ({program['name']}), {job['steps']} steps, {job['threads']} threads",
        f"step           {times.median():.4f} s ({times.minimum:.4f} to {times.maximum:.4f}), "
        f"prefix {times.prefix_median() or 0:.4f} s",
        f"promised peak  {megabytes_up(loaded.predicted_bytes)}",
        f"measured peak  {megabytes(native.peak_resident_bytes())}",
    ]
    return report, "\n".join(table), 0


def _fill(native: Any, data: memoryview[Any], vocabulary: int | None) -> None:
    """Even values in [-1, 1), or all tokens in turn."""
    if data.format != "q" or vocabulary is None:
        native.fill_evenly(data)
        return
    tokens = data.cast("B").cast("q")
    for position in range(len(tokens)):
        tokens[position] = position % vocabulary
