"""Accuracy and loss of the model up to a block, on the test split."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import FormatError
from edge_runtime.device.bundle import open_bundle
from edge_runtime.device.data import open_data
from edge_runtime.device.engine import Engine
from edge_runtime.device.process import peak_resident_bytes
from edge_runtime.device.progress import ProgressLine
from edge_runtime.device.train import check_examples


class EvalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `eval` prints with `--json`. `loss` is the mean cross-entropy in nats, or the mean squared error, which has
    no accuracy."""

    block: int
    program: str
    accuracy: float | None
    loss: float
    examples: int
    predicted_peak_bytes: int
    measured_peak_bytes: int
    arena_bytes: int
    base_bytes: int
    threads: int


def evaluate(
    bundle_path: Path, *, block: int | None, data: str, weights: Path | None, limit: int | None, threads: int
) -> EvalReport:
    """Evaluate `block` (default: the last) on the first `limit` test examples (default: all)."""
    bundle = open_bundle(bundle_path)
    manifest = bundle.manifest
    program = bundle.program_for("eval", block if block is not None else len(manifest.partition.blocks))
    source = open_data(
        data,
        split="test",
        input_shape=manifest.model.input_shape,
        input_dtype=manifest.model.input_dtype,
        targets=manifest.model.classes if program.loss.name == "mse" else None,
    )
    check_examples(source, manifest.model, program.loss.name)
    score = _score if program.loss.name == "cross-entropy" else _squared_error
    engine = Engine(bundle, program, threads=threads, weights=weights)
    if not engine.images.size:
        raise FormatError(f"{bundle_path}: program {program.name} takes no images")
    engine.load_weights()
    examples = min(len(source), limit) if limit is not None else len(source)
    right, loss = 0, 0.0
    line = ProgressLine(examples)
    for start in range(0, examples, program.batch):
        indices = np.arange(start, min(start + program.batch, examples))
        # The last batch is filled by what lies in the staging buffer; its results are not read.
        source.fetch(indices, engine.images[: len(indices)])
        engine.execute()
        batch_right, batch_loss = score(engine.output()[: len(indices)], source.labels[indices])
        right, loss = right + batch_right, loss + batch_loss
        line.update(start + len(indices), f"loss {loss / (start + len(indices)):.4f}")
    line.close()
    return EvalReport(
        block=program.block,
        program=program.name,
        accuracy=right / examples if program.loss.name == "cross-entropy" else None,
        loss=loss / examples,
        examples=examples,
        predicted_peak_bytes=engine.predicted_peak_bytes,
        measured_peak_bytes=peak_resident_bytes(),
        arena_bytes=engine.arena_bytes,
        base_bytes=engine.base_bytes,
        threads=threads,
    )


def _squared_error(outputs: NDArray[np.float32], targets: NDArray[np.float32]) -> tuple[int, float]:
    """No right answers, and the summed squared error of a batch, a mean over what each example has."""
    differences = outputs.astype(np.float64) - targets
    return 0, float((differences**2).reshape(len(outputs), -1).mean(axis=1).sum())


def _score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[int, float]:
    """Right answers and summed cross-entropy of a batch."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(wide).sum(axis=1))
    losses = log_sum - wide[np.arange(len(labels)), labels]
    return int((logits.argmax(axis=1) == labels).sum()), float(losses.sum())
