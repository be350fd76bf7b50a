"""Accuracy and loss of the model up to a block, on the test split."""

from __future__ import annotations

import math

from device_profiles.errors import ExecutionError, FormatError
from edge_runtime.device.worker.batches import IGNORED_LABEL, Examples
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

    The loss is the mean cross-entropy in nats, of all labels that count where an example has several, or against
    targets the mean squared error, which has no accuracy.
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
    examples, several = job["examples"], job["data"]["targets"]
    targets = several > 0 and job["data"]["label_format"] == "f"
    chosen = range(examples) if job["drawn"] is None else memoryview(job["drawn"]).cast("q")
    right, loss, counted = 0, 0.0, 0
    outputs_each = job["classes"] * (1 if targets else several or 1)
    line = ProgressLine(examples)
    for start in range(0, examples, program["batch"]):
        indices = list(chosen[start : start + program["batch"]])
        source.fetch_filled(indices, loaded.data, epoch=0)
        loaded.execute()
        logits = loaded.output()
        flat = logits.cast("B").cast("f")
        for row, index in enumerate(indices):
            outputs = flat[row * outputs_each : (row + 1) * outputs_each].tolist()
            if targets:
                loss, counted = loss + squared_error(outputs, source.target(index)), counted + 1
                continue
            labels = source.labels(index) if several else [source.label(index)]
            hits, row_loss, count = scores(outputs, labels, ignored=IGNORED_LABEL if several else None)
            right, loss, counted = right + hits, loss + row_loss, counted + count
        if loss - loss != 0:
            raise ExecutionError(
                f"{program['name']}: the loss of the examples up to {indices[-1]} is {loss}; the weights or the data "
                "hold NaN or too large values"
            )
        done = start + len(indices)
        so_far = max(1, counted)
        line.update(done, f"loss {loss / so_far:.4f}" if targets else f"accuracy {right / so_far:.4f}")
    line.close()
    if counted == 0:
        raise ExecutionError(f"{program['name']}: no label of the {examples} examples counts; evaluate more of them")
    report: dict[str, Any] = {
        "block": program["block"],
        "program": program["name"],
        "accuracy": None if targets else right / counted,
        "loss": loss / counted,
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
        f"loss           {loss / counted:.4f}",
        f"measured peak  {megabytes(report['measured_peak_bytes'])}",
        *initial_line(report["initial_blocks"]),
    ]
    return report, "\n".join(table), 0


def squared_error(outputs: Sequence[float], targets: Sequence[float]) -> float:
    """The mean squared error of one example."""
    return math.fsum((y - t) ** 2 for y, t in zip(outputs, targets, strict=True)) / len(targets)


def scores(outputs: Sequence[float], labels: Sequence[int], *, ignored: int | None) -> tuple[int, float, int]:
    """Of the labels of one example that are not `ignored`: how many the largest logits are of, the sum of their
    cross-entropies, and how many there are. `outputs` has the logits of each label one after the other."""
    classes = len(outputs) // len(labels)
    right, loss, count = 0, 0.0, 0
    for position, label in enumerate(labels):
        if label == ignored:
            continue
        hit, one = score(outputs[position * classes : (position + 1) * classes], label)
        right, loss, count = right + hit, loss + one, count + 1
    return right, loss, count


def score(logits: Sequence[float], label: int) -> tuple[bool, float]:
    """Whether the largest logit (the first of equal ones) is the label's, and the cross-entropy in nats."""
    largest = max(logits)
    log_sum = math.log(math.fsum(math.exp(value - largest) for value in logits))
    return logits.index(largest) == label, log_sum - (logits[label] - largest)
