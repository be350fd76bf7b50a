"""Measure one program: fresh processes, under the limit when there is one; a kill is a result, not a failure.

Memory is that of a real training: the process of `profl-edge train` on generated data, update written, watched from
outside. Seconds are those of `profl-edge bench` in a process that nobody watches.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from device_profiles.contract import CACHED_PREFIX_VARIANT, LimitKind
from device_profiles.errors import ExecutionError, FormatError, UsageError
from device_profiles.files import read_json
from device_profiles.manifest import Program
from device_profiles.profile import Conditions
from device_profiles.timeline import PlanTimeline, Timeline, Timelines
from device_profiles.work import Distill, Eval, Features, Growing
from edge_runtime.device.data.npz_writing import write_arrays, write_npz
from edge_runtime.device.limits.endings import Endings
from edge_runtime.device.prepare import launch
from edge_runtime.device.prepare.bundle import open_bundle
from edge_runtime.device.prepare.job import bench_job, new_job, program_job
from edge_runtime.device.worker.job import Job
from profiler.facts.conditions import ConditionsWatch
from profiler.measure.base import base_bytes, base_job
from profiler.measure.processes import Ended, run_measured
from profiler.measure.watch import Watched

_TRAINING_STEPS = 2
"""The first step touches every page of the arena; the second shows that nothing is added."""
_BATCHES = 4
_GREY = 128
_SCRATCH = ".profl-profile-"
_TIMED = ("step_seconds_median", "step_seconds_minimum", "step_seconds_maximum", "prefix_seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one repetition said of itself (`report`, the keys of `train --json`), or why it did not live to say it."""

    report: dict[str, Any] | None
    limit_kind: LimitKind
    reason: str | None
    died_at_bytes: int | None = None
    cgroup_peak_bytes: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    watched: Watched | None = None
    conditions: Conditions | None = None

    @property
    def timeline(self) -> Timeline | None:
        """Resident memory over the run, with its first step."""
        if self.watched is None:
            return None
        step = (self.report or {}).get("first_step")
        return self.watched.timeline(None if step is None else (float(step[0]), float(step[1])))


class Meter(Protocol):
    """Runs one program some steps in processes of its own."""

    def measure(self, program: Program) -> Observation:
        """Raise FormatError for a damaged bundle, ExecutionError where anything else but memory is at fault."""

    def base_bytes(self) -> int:
        """Resident memory of a process that is about to load a program; for programs whose own did not live."""

    def plan(self, program: Program) -> PlanTimeline | None:
        """What the program plans over a step; None where there is no plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessMeter:
    """The training processes of `profl-edge train` and `bench` (for `eval` programs, of `profl-edge eval`).

    Data and update lie in `scratch` (by default where temporary files go). It should be on a disk: in a file system in
    memory the update would be charged to the process that is measured.

    With `endings` this process takes no memory beside the one that is measured: it becomes that process, and finds in
    them how it ended when it is started again. Nobody watches then, and `limit_bytes` is the limit of this process.
    """

    bundle: Path
    limit_bytes: int | None
    steps: int
    warmup_steps: int
    threads: int
    timeout_seconds: float | None = None
    scratch: Path | None = None
    endings: Endings | None = None

    def measure(self, program: Program) -> Observation:
        """Run it; killed by the kernel, or out of memory below an rlimit, means that it does not fit."""
        if isinstance(program.work, Features):
            raise UsageError(f"{program.name}: is measured as a part of the programs that read its outputs")
        with nullcontext() if self.endings is not None else ConditionsWatch() as machine:
            ended, report = self._evaluate(program) if isinstance(program.work, Eval) else self._train(program)
        return Observation(
            report=report,
            limit_kind=ended.outcome.limit_kind,
            reason=ended.does_not_fit(),
            died_at_bytes=ended.died_at_bytes if report is None else None,
            cgroup_peak_bytes=ended.outcome.cgroup_peak_bytes,
            minor_faults=ended.minor_faults,
            major_faults=ended.major_faults,
            watched=ended.watched,
            conditions=None if machine is None else machine.conditions(),
        )

    def train(self, program: Program) -> Ended:
        """One watched training of two steps, its update written; whatever came of it."""
        from edge_runtime.device.prepare.request import TrainRequest
        from edge_runtime.device.prepare.training import prepare_training

        cached = program.variant == CACHED_PREFIX_VARIANT
        work = program.work if isinstance(program.work, Growing) else None
        by_block = cached or work is None
        with self._folder() as folder:
            request = TrainRequest(
                bundle=self.bundle,
                block=program.block if by_block else None,
                purpose="distill" if isinstance(program.work, Distill) else None,
                work=None if by_block else work,
                data=self._data(folder, program),
                steps=_TRAINING_STEPS,
                output=folder / "update.safetensors",
                threads=self.threads,
                checkpoint_every=0,
                cache_prefix="float32" if cached else None,
                cache_folder=folder,
            )
            prepared = prepare_training(request, json=True)
            return self._run(prepared.job, program, "train", watch=True)

    def base_bytes(self) -> int:
        """Measured without a limit: the base alone is what every other program of the device also needs."""
        bundle = open_bundle(self.bundle)
        program = bundle.manifest.programs[0]
        if self.endings is None:
            return base_bytes(bundle, program)
        return int(self._run(base_job(bundle, program), program, "base", watch=False).output)

    def plan(self, program: Program) -> PlanTimeline | None:
        """As the bundle states it."""
        path = open_bundle(self.bundle).timelines_path()
        return None if path is None else read_json(path, Timelines).planned.get(program.name)

    def _train(self, program: Program) -> tuple[Ended, dict[str, Any] | None]:
        """The memory of a training, with the seconds of a process that nobody watches."""
        ended = self.train(program)
        report = self._report(program, ended)
        if report is None:
            return ended, None
        timed = self._bench(program)
        timing = self._report(program, timed)
        if timing is None:
            return timed, None
        return ended, report | {key: timing[key] for key in _TIMED}

    def _bench(self, program: Program) -> Ended:
        job = bench_job(
            open_bundle(self.bundle),
            program,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            threads=self.threads,
            json=True,
        )
        return self._run(job, program, "bench", watch=False)

    def _evaluate(self, program: Program) -> tuple[Ended, dict[str, Any] | None]:
        from edge_runtime.device.prepare.examples import data_job, open_examples

        bundle = open_bundle(self.bundle)
        job = new_job("eval", program_job(bundle, program, threads=self.threads), threads=self.threads, json=True)
        job["classes"] = bundle.manifest.model.classes
        with self._folder() as folder:
            source = open_examples(self._data(folder, program), "train", bundle, program)
            job["data"] = data_job(source)
            job["examples"] = len(source)
            ended = self._run(job, program, "eval", watch=True)
        return ended, self._report(program, ended)

    def _run(self, job: Job, program: Program, what: str, *, watch: bool) -> Ended:
        """The training process itself, under the limit; what prepares it is this process, which is not."""
        if self.endings is not None:
            return self._become(job, self.endings, f"{program.name}.{what}")
        job["parent"] = os.getpid()
        with launch.written(job) as (command, files):
            return run_measured(
                command,
                limit_bytes=self.limit_bytes,
                watch=watch,
                timeout_seconds=self.timeout_seconds,
                pass_fds=files,
            )

    def _become(self, job: Job, endings: Endings, name: str) -> Ended:
        """How the process ended that this one was before; it becomes it where that is not known yet."""
        ending = endings.find(name)
        if ending is None:
            endings.ask(name)
            launch.take_place(job)
        return Ended(outcome=ending.outcome, output=ending.output.encode(), complaint=ending.complaint)

    def _report(self, program: Program, ended: Ended) -> dict[str, Any] | None:
        if ended.outcome.returncode == 0:
            report: dict[str, Any] = json.loads(ended.output)
            if report["program"] != program.name:
                raise ExecutionError(f"{program.name}: the runtime ran {report['program']} in its place")
            return report
        if ended.does_not_fit() is None:
            # Status 2 says that the bundle or an option is at fault, not the work.
            kind = FormatError if ended.outcome.returncode == 2 else ExecutionError
            raise kind(f"{program.name}: {'took too long and was ended' if ended.timed_out else ended.last_line}")
        return None

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        if self.scratch is not None:
            _remove_abandoned(self.scratch)
        with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-", dir=self.scratch) as folder:
            yield Path(folder).absolute()

    def _data(self, folder: Path, program: Program) -> str:
        """A data set of some batches of grey images, or of zeros: a step costs the same whatever it sees."""
        bundle = open_bundle(self.bundle)
        model = bundle.manifest.model
        count = _BATCHES * program.batch
        path = folder / "generated.npz"
        shape = (count, *model.input_shape)
        labels = memoryview(array("q", (index % model.classes for index in range(count))))
        if model.positions is not None:
            each = (index % model.classes for index in range(count * model.positions))
            labels = memoryview(array("q", each)).cast("B").cast("q", (count, model.positions))
        if bundle.labels_are_targets(program):
            labels = _filled(0, "f", (count, model.classes))
        if len(model.input_shape) == 3 and model.input_dtype == "float32" and labels.ndim == 1:
            write_npz(path, _filled(_GREY, "B", shape), labels)
        else:
            write_arrays(path, _filled(0, "f" if model.input_dtype == "float32" else "q", shape), labels)
        return f"npz:{path}"


def _filled(octet: int, code: str, shape: tuple[int, ...]) -> memoryview[Any]:
    """An array of `shape`, every byte of which is `octet`; `code` is the type of an element as `array` names it."""
    flat = memoryview(bytes((octet,)) * (math.prod(shape) * array(code).itemsize))
    shaped: memoryview[Any] = flat.cast(code, shape)  # type: ignore[call-overload]
    return shaped


def _remove_abandoned(scratch: Path) -> None:
    """Remove what a profiler left that was killed before it could."""
    for path in scratch.glob(f"{_SCRATCH}*"):
        maker = path.name.removeprefix(_SCRATCH).partition("-")[0]
        if maker.isdigit() and not is_alive(int(maker)):
            shutil.rmtree(path, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this number exists; `/proc` need not be there to ask."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # somebody else's
    return True
