"""Train one block: batches in, one execution a step, an update out."""

from __future__ import annotations

import os
import time

from device_profiles.errors import DivergedError, ExecutionError, FormatError
from device_profiles.seal import new_sha256
from edge_runtime.device.worker.batches import Batches, Examples
from edge_runtime.device.worker.bias_correction import of_step
from edge_runtime.device.worker.files import write_tensors
from edge_runtime.device.worker.heat import Heat
from edge_runtime.device.worker.loaded_program import LoadedProgram
from edge_runtime.device.worker.progress import ProgressLine
from edge_runtime.device.worker.report import StepTimes, smoothed, step_report, step_table
from edge_runtime.device.worker.text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.device.worker.job import Job
    from edge_runtime.device.worker.prefix_cache import PrefixCache

_SIGINT = 2
_ABSURD_FACTOR = 1e4


def train(native: Any, job: Job) -> tuple[dict[str, object] | None, str, int]:
    """Run the job; returns report, table and exit status. Output and checkpoint appear whole or not at all."""
    try:
        return _Training(native, job).run()
    finally:
        if job["lock"] is not None:
            path, file = job["lock"]
            if os.path.exists(path):
                os.unlink(path)
            os.close(file)


class _Training:
    def __init__(self, native: Any, job: Job) -> None:
        self._native = native
        self._job = job
        program = job["program"]
        assert job["data"] is not None  # the command asks for it
        self._started = time.monotonic()
        self._examples = Examples(native, job["data"], seed=job["augment_seed"])
        self._batches = Batches(native, seed=job["seed"], examples=len(self._examples), batch=program["batch"])
        self._steps_done = job["done"]
        self._loss_first = job["loss_first"]
        self._loss_last = job["loss_last"]
        self._loss_smoothed = job["loss_smoothed"]
        self._stopped_early = False
        self._heat = Heat()
        native.note_stop_signals()
        if job["output"] is not None:
            new_sha256()  # an import now is given back before the base is measured
        self._cache = self._open_cache()
        self._loaded = LoadedProgram(native, program, job)
        if self._loaded.data is None:
            raise FormatError(f"{program['path']}: takes no images")
        self._labels, self._data = self._loaded.labels, self._loaded.data
        self._loaded.promise(self._rehearse)

    def _open_cache(self) -> PrefixCache | None:
        """Have the outputs of the frozen prefix computed, where the job wants them cached."""
        self._cache_seconds = 0.0
        self._filling_bytes = 0
        if self._job["cache"] is None:
            return None
        from edge_runtime.device.worker.prefix_cache import PrefixCache

        cache = PrefixCache(self._native, self._job["cache"], examples=len(self._examples))
        if not self._job["check_only"]:
            cache.verify()
        if not cache.complete:
            cache.check_space()
            start = time.monotonic()
            check_only = self._job["check_only"]
            self._filling_bytes = cache.fill(self._native, self._job, self._examples, check_only=check_only)
            self._cache_seconds = time.monotonic() - start
        if cache.complete:
            cache.share()
        return cache

    def _fetch(self, indices: list[int], epoch: int) -> None:
        source = self._cache if self._cache is not None else self._examples
        source.fetch(indices, self._data, epoch=epoch)
        if self._labels is not None:
            self._examples.fetch_labels(indices, self._labels)

    def _rehearse(self) -> None:
        """Let the order and the reader take their memory now, so that the promise counts it in the base."""
        self._batches.indices(self._job["done"])
        (self._examples if self._cache is None else self._cache).rehearse()
        StepTimes().rehearse()
        self._heat.look()
        if self._job["output"] is not None:
            new_sha256()

    def run(self) -> tuple[dict[str, object] | None, str, int]:
        job = self._job
        if job["check_only"]:
            return None, "", 0
        self._loaded.load_tensors()
        if job["state"]:
            self._loaded.read_state(job["state"])
        times = StepTimes()
        self._loop(times)
        signal = self._native.noted_signal()
        interrupted = signal != 0 and self._steps_done < job["steps"] and not self._stopped_early
        if job["output"] is not None and self._loss_last is not None:
            self._save(job["output"], interrupted)
        self._native.end_on_stop_signals()
        report = step_report(
            self._native,
            job,
            self._loaded,
            times,
            steps=self._steps_done,
            examples=len(self._examples),
            loss_first=self._loss_first,
            loss_last=self._loss_last,
            loss_smoothed=self._loss_smoothed,
            interrupted=interrupted,
            stopped_early=self._stopped_early,
            initial_blocks=job["initial_blocks"],
            examples_done=self._examples_done,
            resumed_from=job["done"],
            output=None if interrupted else job["output"],
            cache_bytes=self._cache.bytes if self._cache is not None else None,
            cache_filled_examples=self._cache.filled if self._cache is not None else None,
            cache_seconds=self._cache_seconds if self._cache is not None else None,
        )
        report["predicted_peak_bytes"] = max(self._loaded.predicted_bytes, self._filling_bytes)
        report["clock_share_minimum"], report["temperature_maximum"] = self._heat.clock_share, self._heat.celsius
        report["slowed_down"] = self._heat.slowed_down
        table = "\n".join([step_table(report), *self._heat.line])
        return report, table, 128 + _SIGINT if interrupted and signal == _SIGINT else 0

    def _loop(self, times: StepTimes) -> None:
        steps = self._job["steps"]
        line = ProgressLine(steps, done=self._steps_done, allowed_seconds=self._seconds_left())
        try:
            while self._steps_done < steps and not self._native.noted_signal():
                loss = self._step(self._steps_done, times)
                self._steps_done += 1
                self._loss_first = loss if self._loss_first is None else self._loss_first
                self._loss_last = loss
                self._loss_smoothed = smoothed(self._loss_smoothed, loss, self._steps_done)
                self._heat.look()
                line.update(self._steps_done, f"loss {self._loss_smoothed:.4f}{self._heat.now}")
                if self._steps_done < steps and self._is_late():
                    self._stopped_early = True
                    break
                if self._checkpoint_due():
                    self._checkpoint()
        finally:
            line.close()

    @property
    def _examples_done(self) -> int:
        return self._steps_done * int(self._job["program"]["batch"])

    def _seconds_left(self) -> float | None:
        """Of the time that the training was given, if it was given one."""
        allowed = self._job["max_seconds"]
        return None if allowed is None else allowed - (time.monotonic() - self._started)

    def _is_late(self) -> bool:
        """Whether the time that the training was given is over. At least one step is always made."""
        left = self._seconds_left()
        return left is not None and left <= 0

    def _step(self, step: int, times: StepTimes) -> float:
        indices = self._batches.indices(step)
        epoch = self._job["augment_epoch"] + self._batches.epoch(step)
        size = int(self._job["program"]["micro_batch"])
        loss = total = prefix = 0.0
        counted = self._examples.counted(indices) if self._job["program"]["counts_labels"] else None
        for position, hyperparameters in enumerate(self._job["hyperparameters"]):
            part = indices[position * size : (position + 1) * size]
            self._fetch(part, epoch)
            values = of_step(hyperparameters, self._job["betas"], step)
            self._loaded.set_hyperparameters(values if counted is None else [*values[:-1], counted])
            self._loaded.set_random(self._job["seed"], step * self._loaded.executions + position)
            seconds = self._loaded.execute()
            loss += self._loaded.output()[()]
            total, prefix = total + seconds[0], prefix + seconds[1]
        times.add(total, prefix)
        if loss - loss != 0 or self._is_absurd(loss):
            what = f"the loss is {loss:g}"
            if step > 0:
                raise self._diverged(step + 1, what)
            # No update has been made that --lr could be too large for.
            remedy = "the data or the weights hold NaN or too large values; correct them"
            raise ExecutionError(self._said(1, what, remedy))
        return loss

    def _is_absurd(self, loss: float) -> bool:
        """Whether the loss is so far above the first that no later step will make something of these weights."""
        return self._loss_first is not None and loss > _ABSURD_FACTOR * max(1.0, self._loss_first)

    def _diverged(self, step: int, what: str) -> DivergedError:
        return DivergedError(self._said(step, what, "try a smaller --lr"))

    def _said(self, step: int, what: str, remedy: str) -> str:
        kept = self._job["checkpoint"] is not None and os.path.exists(self._job["checkpoint"])
        end = " (the last checkpoint is kept)" if kept else ""
        return f"step {step} of {self._loaded.program['name']}: {what}; {remedy}{end}"

    def _checkpoint_due(self) -> bool:
        every = self._job["checkpoint_every"]
        done = self._steps_done
        return self._job["output"] is not None and every > 0 and done % every == 0 and done < self._job["steps"]

    def _checkpoint(self) -> None:
        path = self._job["checkpoint"]
        assert path is not None  # _checkpoint_due and _save ask for an output, which has one
        self._native.release_unused_pages()  # writing needs other code than a step, which would come on top of it
        state = self._loaded.state_tensors()
        self._check_finite(state)
        progress = json_text(
            {
                "steps": self._steps_done,
                "loss_first": self._loss_first,
                "loss_last": self._loss_last,
                "loss_smoothed": self._loss_smoothed,
            }
        )
        metadata = f'{{"settings":{self._job["settings"]},"progress":{progress}}}'
        write_tensors(path, state, {"profl_checkpoint": metadata})

    def _check_finite(self, tensors: list[tuple[str, str, memoryview[Any]]]) -> None:
        """A loss is that of the step before: what the last update made of the tensors shows only in themselves."""
        for name, dtype, view in tensors:
            if dtype == "float32" and not self._native.is_finite(view):
                raise self._diverged(self._steps_done, f"tensor '{name}' has a value that is not finite")

    def _save(self, output: str, interrupted: bool) -> None:
        self._native.release_unused_pages()
        if interrupted:
            if self._job["checkpoint"] is not None:  # a device as output has none
                self._checkpoint()
            return
        trained = self._loaded.trained_tensors()
        self._check_finite(trained)
        metadata = {
            "block": self._loaded.program["block"],
            "program": self._loaded.program["name"],
            "examples": len(self._examples),
            "steps": self._steps_done,
            "base_version": self._job["base_version"],
            "loss_first": self._loss_first,
            "loss_last": self._loss_last,
            "examples_done": self._examples_done,
            "stopped_early": self._stopped_early,
        }
        write_tensors(output, trained, {"profl": json_text(metadata)})
        checkpoint = self._job["checkpoint"]
        if checkpoint is not None and os.path.exists(checkpoint):
            os.unlink(checkpoint)
