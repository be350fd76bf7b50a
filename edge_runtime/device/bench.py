"""Time and memory of training steps on synthetic data, for the profiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_profiles.errors import FormatError
from edge_runtime.device.bundle import open_bundle
from edge_runtime.device.engine import Engine
from edge_runtime.device.progress import ProgressLine
from edge_runtime.device.report import StepReport, StepTimes

_LEARNING_RATE = 0.01
_GOLDEN = 0.6180339887498949


def bench(
    bundle_path: Path, *, block: int, steps: int, warmup_steps: int, threads: int, cached_prefix: bool = False
) -> StepReport:
    """Train `block` on one batch that repeats; steps of the warm-up are made, but not timed.

    `cached_prefix`: the step that reads the prefix's outputs, here synthetic as well.
    """
    bundle = open_bundle(bundle_path)
    program = bundle.program_for("grow", block, cached_prefix=cached_prefix)
    engine = Engine(bundle, program, threads=threads)
    if engine.labels is None or not engine.images.size:
        raise FormatError(f"{bundle_path}: program {program.name} takes no images or no labels")
    engine.load_weights()
    engine.labels[...] = np.arange(engine.labels.size) % bundle.manifest.model.classes
    times = StepTimes()
    losses = []
    line = ProgressLine(steps)
    for step in range(-warmup_steps, steps):
        loss, total, prefix = 0.0, 0.0, 0.0
        for position in range(engine.micro_batches):
            _fill(engine.images)
            engine.set_hyperparameters(_LEARNING_RATE, position)
            seconds = engine.execute()
            loss += float(engine.output().reshape(-1)[0])
            total, prefix = total + seconds[0], prefix + seconds[1]
        losses.append(loss)
        if step >= 0:
            times.add(total, prefix)
            line.update(step + 1, f"{total:.3f} s")
    line.close()
    return times.report(engine, steps=steps, examples=program.batch, loss_first=losses[0], loss_last=losses[-1])


def _fill(images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """Even values in [-1, 1), image by image so that no second batch lives beside the staging buffer."""
    positions = np.arange(images[0].size, dtype=np.float64)
    for number, image in enumerate(images):
        image[...] = ((positions + number * images[0].size) * _GOLDEN % 1.0 * 2.0 - 1.0).reshape(image.shape)
