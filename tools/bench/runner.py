"""Carries out the measurements of `step.py`, a fresh process each, with the runtimes taking turns."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click
import numpy as np

from device_profiles.errors import ExecutionError, UsageError
from device_profiles.files import read_json, write_json
from edge_runtime.device.data.npz_writing import write_npz
from profiler.facts.device_facts import describe_device
from tools.bench.results import MEGABYTE, BlockFacts, Results, Run, RuntimeName, Settings, TrainPeak
from tools.bench.workload import ROOT, BlockWork, Workload

PEERS: tuple[RuntimeName, ...] = ("pytorch", "onnxruntime")
_INSTALL = "python3 -m venv .venv-onnxruntime && .venv-onnxruntime/bin/pip install onnxruntime-training==1.19.2 onnx"
_PROFL_EDGE = [sys.executable, "-m", "edge_runtime.device"]
_MEASURED = ("step_seconds_median", "measured_peak_bytes", "loss_first", "loss_last")
_LOSS_TOLERANCE = 1e-3
_TRAIN_STEPS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to measure, beside the model; no `blocks` means all of them."""

    settings: Settings
    blocks: tuple[int, ...]
    threads: tuple[int, ...]
    pairs: int
    onnxruntime_python: Path
    output: Path | None


def say(line: str) -> None:
    """Progress, on standard error."""
    click.echo(line, err=True)


class Bench:
    """Carries out a plan; results are written after every process."""

    def __init__(self, plan: Plan, workload: Workload) -> None:
        self._plan = plan
        self._workload = workload
        self.results = _started(plan)

    def run(self) -> None:
        """Measure what the results lack."""
        works = [self._prepared(index) for index in self._indices()]
        self._choose_runtimes(works)
        for threads in self._plan.threads:
            if threads not in self.results.sgemm_gflops:
                self.results.sgemm_gflops[threads] = self._sgemm(threads)
            for work in works:
                self._measure(work, threads)
                self._measure_train_peak(work, threads)

    def _indices(self) -> tuple[int, ...]:
        count = self._workload.block_count
        for index in self._plan.blocks:
            if not 1 <= index <= count:
                raise UsageError(f"--block {index}: the partition has blocks 1 to {count}")
        return self._plan.blocks or tuple(range(1, count + 1))

    def _prepared(self, index: int) -> BlockWork:
        say(f"block {index}: preparing")
        work = self._workload.block(index)
        facts = BlockFacts(
            index=index, units=work.units, operations=work.operations, prefix_operations=work.prefix_operations
        )
        if facts not in self.results.blocks:
            self.results.blocks = sorted([*self.results.blocks, facts], key=lambda block: block.index)
        return work

    def _choose_runtimes(self, works: list[BlockWork]) -> None:
        """Ours and the peers asked for, without those that cannot be had or cannot train this model."""
        chosen: list[RuntimeName] = ["ours"]
        for peer in self._plan.settings.peers:
            reason = self._prepare_onnxruntime(works) if peer == "onnxruntime" else None
            if reason is None:
                chosen.append(peer)
            else:
                self.results.left_out[peer] = reason
                say(f"{peer} is left out: {reason}")
        self.results.runtimes = tuple(chosen)
        self.results.software |= _software(self.results.runtimes, self._plan.onnxruntime_python)

    def _prepare_onnxruntime(self, works: list[BlockWork]) -> str | None:
        """Why it cannot be measured; None when everything is ready."""
        python = self._plan.onnxruntime_python
        if not python.exists():
            return f"there is no {python}; `{_INSTALL}` makes it"
        try:
            for work in works:
                self._workload.write_onnx(work)
                _output([str(python.absolute()), "-m", "tools.bench.onnxruntime_step", "prepare", str(work.folder)])
        except ExecutionError as error:
            return str(error)
        return None

    def _sgemm(self, threads: int) -> float:
        rate = float(_output([sys.executable, "-m", "tools.bench.sgemm", str(threads)], threads))
        say(f"sgemm, threads {threads}: {rate:.0f} GFLOP/s")
        return rate

    def _measure(self, work: BlockWork, threads: int) -> None:
        whole = self.results.whole_pairs(work.index, threads)
        for pair in range(1, self._plan.pairs + 1):
            if pair in whole:
                continue
            # A pair that was interrupted is measured again, whole: its halves would lie far apart in time.
            key = (work.index, threads, pair)
            self.results.runs = [run for run in self.results.runs if (run.block, run.threads, run.pair) != key]
            for runtime in self.results.runtimes:
                self._measure_once(work, threads, pair, runtime)

    def _measure_once(self, work: BlockWork, threads: int, pair: int, runtime: RuntimeName) -> None:
        measured = json.loads(_output(self._command(runtime, work, threads), threads))
        values = {name: measured[name] for name in _MEASURED}
        run = Run(runtime=runtime, block=work.index, threads=threads, pair=pair, **values)
        self._check_loss(run)
        self.results.runs.append(run)
        self._write()
        say(
            f"block {work.index}, threads {threads}, pair {pair} of {self._plan.pairs}: "
            f"{runtime} {run.step_seconds_median:.3f} s, {run.measured_peak_bytes / MEGABYTE:.1f} MB"
        )

    def _command(self, runtime: RuntimeName, work: BlockWork, threads: int) -> list[str]:
        counts = [str(threads), str(self._plan.settings.warmup), str(self._plan.settings.steps)]
        if runtime == "pytorch":
            return [sys.executable, "-m", "tools.bench.pytorch_step", str(work.folder), *counts]
        if runtime == "onnxruntime":
            python = str(self._plan.onnxruntime_python.absolute())
            return [python, "-m", "tools.bench.onnxruntime_step", "run", str(work.folder), *counts]
        options = ["--threads", counts[0], "--warmup", counts[1], "--steps", counts[2], "--json", *self._options()]
        return [*_PROFL_EDGE, "bench", str(self._workload.bundle), "--block", str(work.index), *options]

    def _check_loss(self, run: Run) -> None:
        """Every runtime starts from the same weights and batch; another first loss means another computation.

        Options of ours may change what the batch is: features from a cache, micro-batches.
        """
        if self._workload.request.export_options or self._plan.settings.train_options:
            return
        first = next((r.loss_first for r in self.results.runs if r.block == run.block), run.loss_first)
        if abs(run.loss_first - first) > _LOSS_TOLERANCE * max(1.0, abs(first)):
            raise ExecutionError(f"block {run.block}: {run.runtime} starts at loss {run.loss_first}, not {first}")

    def _measure_train_peak(self, work: BlockWork, threads: int) -> None:
        """The peak that matters is the one of `train`, which also reads data; images only (`npz:` holds no others)."""
        done = {(peak.block, peak.threads) for peak in self.results.train_peaks}
        if (work.index, threads) in done or len(self._workload.request.input_shape) != 3:
            return
        options = ["--data", f"npz:{self._data()}", "--steps", str(_TRAIN_STEPS), "--threads", str(threads), "--json"]
        options += self._options()
        command = [*_PROFL_EDGE, "train", str(self._workload.bundle), "--block", str(work.index), *options]
        peak = int(json.loads(_output(command))["measured_peak_bytes"])
        self.results.train_peaks.append(TrainPeak(block=work.index, threads=threads, measured_peak_bytes=peak))
        self._write()
        say(f"block {work.index}, threads {threads}: profl-edge train peaks at {peak / MEGABYTE:.1f} MB")

    def _options(self) -> list[str]:
        return shlex.split(self._plan.settings.train_options)

    def _data(self) -> Path:
        """Random images in a file, a batch for each step."""
        path = self._workload.folder / "data.npz"
        request = self._workload.request
        if not path.exists():
            count = _TRAIN_STEPS * request.batch
            images = np.random.default_rng(0).integers(0, 256, (count, *request.input_shape), np.uint8)
            write_npz(path, images, np.arange(count) % request.classes)
        return path

    def _write(self) -> None:
        if self._plan.output is not None:
            write_json(self._plan.output, self.results)


def _output(command: list[str], threads: int | None = None) -> str:
    """Standard output of a process that went well; its libraries are told the number of threads."""
    counts = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    environment = {**os.environ, **counts, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExecutionError(f"{' '.join(command[1:4])}: {reason}")
    return done.stdout


def _software(runtimes: tuple[RuntimeName, ...], python: Path) -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("profl-edge", "torch")}
    if "onnxruntime" in runtimes:
        code = "from importlib import metadata; print(metadata.version('onnxruntime-training'))"
        versions["onnxruntime-training"] = _output([str(python.absolute()), "-c", code]).strip()
    return versions


def _started(plan: Plan) -> Results:
    """Results to add to: those of an earlier run with the same settings, or empty ones."""
    if plan.output is not None and plan.output.exists():
        results = read_json(plan.output, Results)
        if results.settings != plan.settings:
            raise UsageError(f"-o {plan.output}: holds results of other settings; choose another file or remove it")
        return results
    return Results(settings=plan.settings, device=describe_device("bench", limit_bytes=None, limit_kind="none"))
