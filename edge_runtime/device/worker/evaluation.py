"""Accuracy and loss of the model up to a block, on the test split."""

from __future__ import annotations

import math

from device_profiles.errors import ExecutionError, FormatError
from edge_runtime.device.worker.batches import Examples
from edge_runtime.device.worker.loaded_program import LoadedProgram
from edge_runtime.device.worker.progress import ProgressLine
from edge_runtime.device.worker.report import initial_line
from edge_runtime.device.worker.text import json_text, megabytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from edge_runtime.device.worker.job import Job


def evaluate(native: Any, job: Job) -> tuple[dict[str, object] | None, str, int]:
    """Evaluate on `examples` of the data.

    The loss is the mean cross-entropy in nats, or against targets the mean squared error, which has no accuracy.
    """
    program = job["program"]
    assert job["data"] is not None  # the command asks for it
    source = Examples(native, job["data"])
    loaded = LoadedProgram(native, program, job)
    if loaded.data is None:
        raise FormatError(f"{program['path']}: takes no images")

    def rehearse() -> None:
        source.rehearse()
        outputs = memoryview(bytearray(4 * job["classes"])).cast("f").tolist()
        (_, loss), error = score(outputs, 0), squared_error(outputs, outputs)
        json_text({"accuracy": loss, "loss": error, "shown": f"{loss:.4f}", "indices": list(range(program["batch"]))})

    loaded.promise(rehearse)
    loaded.load_tensors()
    examples, targets = job["examples"], job["data"]["targets"]
    chosen = range(examples) if job["drawn"] is None else memoryview(job["drawn"]).cast("q")
    right, loss = 0, 0.0
    line = ProgressLine(examples)
    for start in range(0, examples, program["batch"]):
        indices = list(chosen[start : start + program["batch"]])
        source.fetch_filled(indices, loaded.data, epoch=0)
        loaded.execute()
        logits = loaded.output()
        classes = job["classes"]
        flat = logits.cast("B").cast("f")
        for row, index in enumerate(indices):
            outputs = flat[row * classes : (row + 1) * classes].tolist()
            if targets:
                loss += squared_error(outputs, source.target(index))
            else:
                hit, row_loss = score(outputs, source.label(index))
                right, loss = right + hit, loss + row_loss
        if loss - loss != 0:
            raise ExecutionError(
                f"{program['name']}: the loss of the examples up to {indices[-1]} is {loss}; the weights or the data "
                "hold NaN or too large values"
            )
        done = start + len(indices)
        line.update(done, f"loss {loss / done:.4f}" if targets else f"accuracy {right / done:.4f}")
    line.close()
    report: dict[str, Any] = {
        "block": program["block"],
        "program": program["name"],
        "accuracy": None if targets else right / examples,
        "loss": loss / examples,
        "examples": examples,
        "initial_blocks": job["initial_blocks"],
        "predicted_peak_bytes": loaded.predicted_bytes,
        "measured_peak_bytes": native.peak_resident_bytes(),
        "arena_bytes": loaded.arena_bytes,
        "base_bytes": loaded.base_bytes,
        "threads": job["threads"],
    }
    table = [
        f"block {report['block']} ({report['program']}), {examples} examples",
        *([] if targets else [f"accuracy       {report['accuracy']:.4f}"]),
        f"loss           {loss / examples:.4f}",
        f"measured peak  {megabytes(report['measured_peak_bytes'])}",
        *initial_line(report["initial_blocks"]),
    ]
    return report, "\n".join(table), 0


def squared_error(outputs: Sequence[float], targets: Sequence[float]) -> float:
    """The mean squared error of one example."""
    return math.fsum((y - t) ** 2 for y, t in zip(outputs, targets, strict=True)) / len(targets)


def score(logits: Sequence[float], label: int) -> tuple[bool, float]:
    """Whether the largest logit (the first of equal ones) is the label's, and the cross-entropy in nats."""
    largest = max(logits)
    log_sum = math.log(math.fsum(math.exp(value - largest) for value in logits))
    return logits.index(largest) == label, log_sum - (logits[label] - largest)
