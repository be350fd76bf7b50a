"""The meter for PyTorch eager: the same figures as for the runtime of this package, on the CPU or a GPU.

This module starts processes and imports no torch itself; `torch_step` and `torch_plan` are what it starts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass

import msgspec

from device_profiles.errors import ExecutionError, UsageError
from device_profiles.manifest import MemoryPlan, Optimizer, Program
from device_profiles.model import Model, Partition
from device_profiles.timeline import PlanTimeline
from device_profiles.work import Grow, grow, label
from profiler.facts.conditions import ConditionsWatch
from profiler.measure.processes import run_measured
from profiler.measure.program import Observation
from profiler.torch.spec import TorchDevice, step_spec

_NO_MEMORY = ("out of memory", "can't allocate memory", "memoryerror", "bad_alloc", "cannot allocate")


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model without a bundle: a built-in one or `package.module:factory`."""

    model: str
    width: int | None
    classes: int
    input_shape: tuple[int, ...]
    blocks: int | None = None


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its units and blocks."""

    model: Model
    partition: Partition


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchMeter:
    """Runs training programs as PyTorch does. Everything is counted in the process, so there is no plan."""

    model: Model
    partition: Partition
    device: TorchDevice
    limit_bytes: int | None
    steps: int
    warmup_steps: int
    threads: int
    timeout_seconds: float | None = None

    def measure(self, program: Program) -> Observation:
        """One process; out of memory, on the host or the GPU, means that it does not fit."""
        if not isinstance(program.work, Grow):
            raise UsageError(f"{program.name}: --runtime torch measures only training programs; use --purpose grow")
        spec = step_spec(
            self.model,
            self.partition,
            program=program.name,
            block=program.block,
            batch=program.batch,
            device=self.device,
            threads=self.threads,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
        )
        command = [sys.executable, "-m", "profiler.torch.step", msgspec.json.encode(spec).decode()]
        with ConditionsWatch() as machine:
            ended = run_measured(
                command, limit_bytes=self.limit_bytes, watch=True, timeout_seconds=self.timeout_seconds
            )
        reason = ended.does_not_fit()
        report = None
        if ended.outcome.returncode == 0:
            report = json.loads(ended.output)
        elif reason is None and any(words in ended.last_line.lower() for words in _NO_MEMORY):
            reason = f"does not fit: {ended.last_line}"
        elif reason is None:
            raise ExecutionError(f"{program.name}: {ended.last_line}")
        return Observation(
            report=report,
            limit_kind=ended.outcome.limit_kind,
            reason=reason,
            died_at_bytes=ended.died_at_bytes if report is None else None,
            cgroup_peak_bytes=ended.outcome.cgroup_peak_bytes,
            minor_faults=ended.minor_faults,
            major_faults=ended.major_faults,
            watched=ended.watched,
            conditions=machine.conditions(),
        )

    def base_bytes(self) -> int:
        """Resident memory of a process that has imported torch."""
        code = "import torch; from profiler.facts.own_memory import resident_bytes; print(resident_bytes())"
        ended = run_measured([sys.executable, "-c", code])
        if ended.outcome.returncode != 0:
            raise ExecutionError(f"--runtime torch: base: {ended.last_line}")
        return int(ended.output)

    def plan(self, program: Program) -> PlanTimeline | None:
        """PyTorch plans nothing."""
        return None


def plan_of(choice: ModelChoice) -> ModelPlan:
    """Units and blocks of a model; raises UsageError, naming the option, where it has none."""
    require_torch()
    ended = run_measured([sys.executable, "-m", "profiler.torch.plan", msgspec.json.encode(choice).decode()])
    if ended.outcome.returncode == 2:
        raise UsageError(ended.last_line)
    if ended.outcome.returncode != 0:
        raise ExecutionError(f"--model {choice.model}: {ended.last_line}")
    return msgspec.json.decode(ended.output, type=ModelPlan)


def programs_of(partition: Partition, batch: int) -> tuple[Program, ...]:
    """One training program a block, whose memory is not known before it ran."""
    return tuple(
        Program(
            name=label(grow(partition, block.index), partition),
            work=grow(partition, block.index),
            block=block.index,
            batch=batch,
            micro_batch=batch,
            variant="default",
            optimizer=Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4),
            inputs=(),
            tensors=(),
            prefix_instructions=0,
            instructions=0,
            memory=MemoryPlan(
                arena_bytes=0,
                live_bytes=0,
                frozen_bytes=0,
                workspace_bytes_per_thread=0,
                staging_bytes=0,
                parameters_bytes=0,
                gradients_bytes=0,
                optimizer_state_bytes=0,
                activations_bytes=0,
                temporaries_bytes=0,
            ),
        )
        for block in partition.blocks
    )


def digest_of(plan: ModelPlan) -> str:
    """Stands in a profile where a bundle's digest would: SHA-256 of the model's units and blocks."""
    return hashlib.sha256(msgspec.json.encode(plan)).hexdigest()


def require_torch() -> None:
    """Raise UsageError where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError("--runtime torch: torch is not installed; pip install torch==2.13.0")
