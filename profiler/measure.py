"""Measure one program: a fresh process, under the limit when there is one; a kill is a result, not a failure."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from device_profiles.bundle import Program
from device_profiles.contract import CACHED_PREFIX_VARIANT, IMAGES_INPUT, LimitKind
from device_profiles.errors import ExecutionError, FormatError, UsageError
from edge_runtime.device.bundle import open_bundle
from edge_runtime.device.limits import Outcome, run_limited
from profiler.base import base_bytes

_PURPOSES = ("grow", "eval")
_SIGKILL = -9


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one process said of itself (`report`, the keys of `bench --json`), or why it did not live to say it."""

    report: dict[str, Any] | None
    limit_kind: LimitKind
    reason: str | None


class Meter(Protocol):
    """Runs one program some steps in a process of its own."""

    def measure(self, program: Program) -> Observation:
        """Raise FormatError for a damaged bundle, ExecutionError where anything else but memory is at fault."""

    def base_bytes(self) -> int:
        """Resident memory of a process that is about to load a program; for programs whose own did not live."""


class ProcessMeter:
    """`profl-edge bench` (for `eval` programs, `profl-edge eval`) in a fresh process under `limit_bytes`."""

    def __init__(self, bundle: Path, *, limit_bytes: int | None, steps: int, warmup_steps: int, threads: int) -> None:
        self._bundle = bundle
        self._limit_bytes = limit_bytes
        self._threads = ["--threads", str(threads), "--json"]
        self._steps = ["--steps", str(steps), "--warmup", str(warmup_steps)]

    def measure(self, program: Program) -> Observation:
        """Run it; killed by the kernel, or out of memory below an rlimit, means that it does not fit."""
        if program.purpose not in _PURPOSES:
            raise UsageError(f"{program.name}: programs for '{program.purpose}' cannot be profiled in this release")
        if program.purpose == "grow":
            cached = ["--cache-prefix"] if program.variant == CACHED_PREFIX_VARIANT else []
            return self._run("bench", program, [*self._steps, *cached])
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "synthetic.npz"
            _write_synthetic(data, program)
            return self._run("eval", program, ["--data", f"npz:{data}"])

    def base_bytes(self) -> int:
        """Measured without a limit: the base alone is what every other program of the device also needs."""
        bundle = open_bundle(self._bundle)
        return base_bytes(bundle, bundle.manifest.programs[0])

    def _run(self, command: str, program: Program, options: list[str]) -> Observation:
        arguments = [sys.executable, "-m", "edge_runtime.device", command, str(self._bundle)]
        arguments += ["--block", str(program.block), *options, *self._threads]
        outcome, said, complaint = _run_captured(arguments, self._limit_bytes)
        if outcome.returncode == 0:
            return Observation(report=json.loads(said), limit_kind=outcome.limit_kind, reason=None)
        last = _last_line(complaint, outcome)
        reason = _does_not_fit(outcome, last)
        if reason is None:
            # Status 2 says that the bundle or an option is at fault, not the work.
            raise (FormatError if outcome.returncode == 2 else ExecutionError)(f"{program.name}: {last}")
        return Observation(report=None, limit_kind=outcome.limit_kind, reason=reason)


def _does_not_fit(outcome: Outcome, complaint: str) -> str | None:
    """Why an ended process did not fit, None where it failed for another reason."""
    if outcome.oom_kills or outcome.returncode == _SIGKILL:
        peak = outcome.cgroup_peak_bytes
        at = "" if peak is None else f" with {peak} bytes charged"
        return f"does not fit: killed at the limit{at}"
    # An rlimit makes a request fail, which can end a process anywhere on its way; only status 2 is surely not memory.
    if outcome.limit_kind == "rlimit" and outcome.returncode != 2:
        return f"does not fit: {complaint}"
    return None


def _run_captured(command: list[str], limit_bytes: int | None) -> tuple[Outcome, bytes, str]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        outcome = run_limited(command, limit_bytes=limit_bytes, env=dict(os.environ), stdout=output, stderr=errors)
        output.seek(0)
        errors.seek(0)
        return outcome, output.read(), errors.read().decode(errors="replace")


def _last_line(complaint: str, outcome: Outcome) -> str:
    lines = complaint.strip().splitlines()
    return lines[-1].removeprefix("profl-edge: error: ") if lines else f"exit status {outcome.returncode}"


def _write_synthetic(path: Path, program: Program) -> None:
    """One batch of grey images, or of zeros: an evaluation costs the same whatever it sees."""
    import numpy as np

    from edge_runtime.device.data import write_arrays, write_npz

    shape = next(value.shape for value in program.inputs if value.name == IMAGES_INPUT)
    labels = np.zeros(shape[0], np.int64)
    if len(shape) == 4:
        write_npz(path, np.full(shape, 128, np.uint8), labels)
    else:
        write_arrays(path, np.zeros(shape, np.float32), labels)
