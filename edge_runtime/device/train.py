"""Train one block: batches in, one execution a step, an update out."""

from __future__ import annotations

import math
import re
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_profiles.contract import LimitKind
from device_profiles.errors import DataError, ExecutionError, FormatError, UsageError
from device_profiles.update import UpdateMetadata
from edge_runtime.device.bundle import Bundle, open_bundle
from edge_runtime.device.checkpoint import Progress, Settings, checkpoint_path, load_checkpoint, save_checkpoint
from edge_runtime.device.data import DataSource, open_data
from edge_runtime.device.engine import Engine
from edge_runtime.device.interruption import Interruption
from edge_runtime.device.lock import exclusive
from edge_runtime.device.order import Batches
from edge_runtime.device.progress import ProgressLine
from edge_runtime.device.report import StepReport, StepTimes
from edge_runtime.device.tensors import write_tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """One `train` command. `steps` wins over `epochs`; without both, one epoch."""

    bundle: Path
    block: int
    data: str
    steps: int | None = None
    epochs: int | None = None
    learning_rate: float = 0.05
    seed: int = 0
    weights: Path | None = None
    output: Path | None = None
    base_version: str = ""
    limit_bytes: int | None = None
    limit_kind: LimitKind = "none"
    threads: int = 1
    checkpoint_every: int = 100
    resume: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The report, and the signal that ended the run early (None when it reached its last step)."""

    report: StepReport
    signal: int | None


def train(request: TrainRequest) -> TrainResult:
    """Run the request. Nothing is half-written: output and checkpoint appear whole or not at all.

    Raises a child of ProflError with one line for everything that is wrong with the files, the data or the limit.
    """
    with exclusive(request.output) if request.output is not None else nullcontext():
        return _Training(request).run()


def check(request: TrainRequest) -> None:
    """Do all that comes before the first step, so that every refusal happens now; writes nothing."""
    _Training(request)


class _Training:
    def __init__(self, request: TrainRequest) -> None:
        self._request = request
        bundle = open_bundle(request.bundle)
        program = bundle.program_for("grow", request.block)
        model = bundle.manifest.model
        self._data = open_data(request.data, split="train", input_shape=model.input_shape)
        check_labels(self._data, model.classes)
        self._batches = Batches(seed=request.seed, examples=len(self._data), batch=program.batch)
        if self._batches.per_epoch == 0:
            raise DataError(
                f"--data {request.data}: {len(self._data)} examples do not fill one batch of {program.batch}; "
                "give more data, or export with a smaller --batch"
            )
        self._steps = _step_count(request, self._batches.per_epoch)
        self._warm_up(model.input_shape)
        self._engine = Engine(
            bundle, program, threads=request.threads, weights=request.weights, limit_bytes=request.limit_bytes
        )
        if self._engine.labels is None or not self._engine.images.size:
            raise FormatError(f"{request.bundle}: program {program.name} takes no images or no labels")
        self._labels = self._engine.labels
        self._settings = _settings(request, bundle, program.name, self._data)

    def _warm_up(self, input_shape: tuple[int, ...]) -> None:
        """Let the order and the reader take their memory now, so that the promise counts it in the base."""
        first = self._batches.indices(0)[:1]
        self._data.fetch(first, np.empty((1, *input_shape), np.float32))

    def run(self) -> TrainResult:
        output = self._request.output
        if output is not None:
            _remove_leftovers(output)
        self._engine.load_weights()
        progress = self._resume()
        started_at = progress.steps if progress is not None else 0
        times = StepTimes()
        with Interruption() as interruption:
            progress = self._loop(progress, times, interruption)
            interrupted = interruption.signal is not None and (progress is None or progress.steps < self._steps)
            if output is not None and progress is not None:
                self._save(output, progress, interrupted)
        report = times.report(
            self._engine,
            steps=progress.steps if progress is not None else 0,
            examples=len(self._data),
            loss_first=progress.loss_first if progress is not None else None,
            loss_last=progress.loss_last if progress is not None else None,
            interrupted=interrupted,
            resumed_from=started_at,
            output=str(output) if output is not None and not interrupted else None,
            limit_bytes=self._request.limit_bytes,
            limit_kind=self._request.limit_kind,
        )
        return TrainResult(report=report, signal=interruption.signal if interrupted else None)

    def _loop(self, progress: Progress | None, times: StepTimes, interruption: Interruption) -> Progress | None:
        line = ProgressLine(self._steps)
        done = progress.steps if progress is not None else 0
        try:
            while done < self._steps and interruption.signal is None:
                loss = self._step(done, times)
                done += 1
                first = progress.loss_first if progress is not None else loss
                progress = Progress(steps=done, loss_first=first, loss_last=loss)
                line.update(done, f"loss {loss:.4f}")
                if self._checkpoint_due(done):
                    self._checkpoint(progress)
        finally:
            line.close()
        return progress

    def _step(self, step: int, times: StepTimes) -> float:
        indices = self._batches.indices(step)
        loss, total, prefix = 0.0, 0.0, 0.0
        size = len(self._labels)
        for position in range(self._engine.micro_batches):
            part = indices[position * size : (position + 1) * size]
            self._data.fetch(part, self._engine.images)
            self._labels[...] = self._data.labels[part]
            self._engine.set_hyperparameters(self._request.learning_rate, position)
            seconds = self._engine.execute()
            loss += float(self._engine.output().reshape(-1)[0])
            total, prefix = total + seconds[0], prefix + seconds[1]
        times.add(total, prefix)
        if not math.isfinite(loss):
            raise ExecutionError(
                f"step {step + 1} of {self._engine.program.name}: the loss is {loss}; try a smaller --lr"
                + (" (the last checkpoint is kept)" if self._has_checkpoint() else "")
            )
        return loss

    def _resume(self) -> Progress | None:
        output = self._request.output
        if not self._request.resume:
            return None
        if output is None:
            raise UsageError("--resume needs -o: the checkpoint lies beside the output")
        path = checkpoint_path(output)
        if not path.exists():
            return None
        progress = load_checkpoint(path, self._engine, self._settings)
        if progress.steps > self._steps:
            raise UsageError(f"{path}: is at step {progress.steps}, beyond --steps {self._steps}; give more steps")
        return progress

    def _checkpoint_due(self, done: int) -> bool:
        every = self._request.checkpoint_every
        return self._request.output is not None and every > 0 and done % every == 0 and done < self._steps

    def _checkpoint(self, progress: Progress) -> None:
        assert self._request.output is not None  # _checkpoint_due and _save ask for it
        save_checkpoint(checkpoint_path(self._request.output), self._engine, self._settings, progress)

    def _has_checkpoint(self) -> bool:
        return self._request.output is not None and checkpoint_path(self._request.output).exists()

    def _save(self, output: Path, progress: Progress, interrupted: bool) -> None:
        if interrupted:
            self._checkpoint(progress)
            return
        metadata = UpdateMetadata(
            block=self._engine.program.block,
            program=self._engine.program.name,
            examples=len(self._data),
            steps=progress.steps,
            base_version=self._request.base_version,
            loss_first=progress.loss_first,
            loss_last=progress.loss_last,
        )
        write_tensors(output, self._engine.trained_tensors(), metadata.to_strings())
        checkpoint_path(output).unlink(missing_ok=True)


def check_labels(data: DataSource, classes: int) -> None:
    """Raise DataError, with the file, the value and its example, for a label outside [0, classes)."""
    for position in (int(data.labels.argmin()), int(data.labels.argmax())):
        label = int(data.labels[position])
        if not 0 <= label < classes:
            raise DataError(
                f"{data.labels_origin}: label {label} (example {position}) is outside 0..{classes - 1}; "
                f"export the model with --classes {max(data.classes, 1)} or correct the labels"
            )


def _step_count(request: TrainRequest, per_epoch: int) -> int:
    if request.steps is not None:
        return request.steps
    return (request.epochs if request.epochs is not None else 1) * per_epoch


def _settings(request: TrainRequest, bundle: Bundle, program: str, data: DataSource) -> Settings:
    from device_profiles.files import sha256_of

    return Settings(
        bundle=bundle.digest,
        program=program,
        data=request.data,
        examples=len(data),
        labels_crc32=zlib.crc32(data.labels.tobytes()),
        learning_rate=request.learning_rate,
        seed=request.seed,
        weights=sha256_of(request.weights) if request.weights is not None else None,
        base_version=request.base_version,
        threads=request.threads,
    )


def _remove_leftovers(output: Path) -> None:
    """Remove temporary files that a killed run of the same output left; the lock says that nobody writes them now."""
    ours = re.compile(rf"\.{re.escape(output.name)}(\.checkpoint)?\.[a-z0-9_]{{8}}")
    for path in output.parent.iterdir():
        if ours.fullmatch(path.name):
            path.unlink(missing_ok=True)
