"""Make a job for the training process: its program, weights, data and optimizer, each checked before."""

from __future__ import annotations

import importlib.util
import os
from typing import Literal

from device_profiles.contract import TRAINED_ROLES
from device_profiles.errors import ExecutionError
from device_profiles.manifest import Program
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.promise import VARIATION_BYTES
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.hyperparameters import hyperparameters
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.worker.job import Job, JobInput, NamedValue, ProgramJob

_BENCH_LEARNING_RATE = 0.01


def new_job(work: Literal["train", "bench", "eval", "base"], program: ProgramJob, *, threads: int, json: bool) -> Job:
    """A job with everything else at rest; the caller fills in what its work needs."""
    return Job(
        work=work,
        native=_native_path(),
        program=program,
        threads=threads,
        json=json,
        parent=None,
        limit_bytes=None,
        limit_kind="none",
        limit_name="",
        check_only=False,
        data=None,
        cache=None,
        examples=0,
        drawn=None,
        classes=0,
        steps=0,
        max_seconds=None,
        warmup_steps=0,
        hyperparameters=[],
        betas=None,
        vocabulary=None,
        seed=0,
        augment_seed=0,
        augment_epoch=0,
        output=None,
        lock=None,
        base_version="",
        initial_blocks=[],
        checkpoint=None,
        checkpoint_every=0,
        settings="",
        done=0,
        loss_first=None,
        loss_last=None,
        loss_smoothed=None,
        state={},
    )


def program_job(bundle: Bundle, program: Program, *, threads: int, weights: LaidWeights | None = None) -> ProgramJob:
    """Describe a program, with every tensor as `weights` have it, by default the bundle's initial ones.

    Raises FormatError or DigestError where a file is not what the manifest says.
    """
    weights = LaidWeights(bundle) if weights is None else weights
    inputs: list[JobInput] = [
        (
            i.name,
            i.role,
            i.dtype,
            i.shape,
            weights.place(i.name, i.dtype, i.shape) if i.role == "frozen" else None,
            list(i.read_before),
            i.arena_offset or 0,
        )
        for i in program.inputs
        if i.role != "data"
    ]
    data = next(((i.name, i.role, i.dtype, i.shape, None) for i in program.inputs if i.role == "data"), None)
    tensors: list[NamedValue] = [
        (
            t.name,
            t.role,
            t.dtype,
            t.shape,
            weights.place(t.name, t.dtype, t.shape) if t.role in TRAINED_ROLES else None,
        )
        for t in program.tensors
    ]
    memory = program.memory
    return ProgramJob(
        name=program.name,
        path=os.path.abspath(bundle.program_path(program)),
        block=program.block,
        batch=program.batch,
        micro_batch=program.micro_batch,
        counts_labels=program.counted_labels > 0,
        prefix_instructions=program.prefix_instructions,
        instructions=program.instructions,
        data=data,
        inputs=inputs,
        tensors=tensors,
        memory={
            "arena": memory.arena_bytes,
            "frozen": memory.frozen_bytes,
            "workspace_per_thread": memory.workspace_bytes_per_thread,
            "staging": memory.staging_bytes,
            "total": memory.total_bytes(threads),
            "variation": VARIATION_BYTES,
            "files": 0,
        },
    )


def set_optimizer(job: Job, program: Program, learning_rate: float, proximal_mu: float = 0.0) -> None:
    """Hyperparameters for each execution of a step of `program`."""
    optimizer = program.optimizer
    if optimizer is None:
        return
    count = program.batch // program.micro_batch
    # How many of the labels count is filled in for every step.
    every = [float(program.counted_labels)] if program.counted_labels > 0 else []
    job["hyperparameters"] = [
        hyperparameters(optimizer, learning_rate, i, count, step=0, proximal_mu=proximal_mu) + every
        for i in range(count)
    ]
    if OPTIMIZERS[optimizer.name].corrects_bias:
        job["betas"] = (optimizer.beta1, optimizer.beta2)


def bench_job(bundle: Bundle, program: Program, *, steps: int, warmup_steps: int, threads: int, json: bool) -> Job:
    """Steps on one batch that the training process makes up; those of the warm-up are not timed."""
    job = new_job("bench", program_job(bundle, program, threads=threads), threads=threads, json=json)
    model = bundle.manifest.model
    job["classes"], job["vocabulary"] = model.classes, model.vocabulary
    job["steps"], job["warmup_steps"] = steps, warmup_steps
    set_optimizer(job, program, _BENCH_LEARNING_RATE)
    return job


def _native_path() -> str:
    spec = importlib.util.find_spec("edge_runtime.device._native")
    if spec is None or spec.origin is None:
        raise ExecutionError("the native module is not installed; install profl-edge again")
    return spec.origin
