"""A job: all that the training process needs to know, as plain values that `marshal` writes.

The process that prepares a job reads and checks manifests, headers and options with whatever makes that safe, and ends
in (or waits for) the training process, which imports none of it.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Literal, TypedDict

from device_profiles.bundle import Program
from device_profiles.contract import TRAINED_ROLES, VARIATION_BYTES, DType, LimitKind
from device_profiles.errors import ExecutionError
from edge_runtime.device.bundle import Bundle
from edge_runtime.device.laid_weights import LaidWeights
from edge_runtime.device.optimizer import hyperparameters

_BENCH_LEARNING_RATE = 0.01
Source = tuple[str, int, int]
"""Where the bytes of a tensor lie: path, offset, size."""

Part = tuple[int, int, int, int] | tuple[int, bytes]
"""Images of a file: its descriptor, then offset of the first, bytes between two and their number; or their offsets."""

NamedValue = tuple[str, str, str, tuple[int, ...], Source | None]
"""Name, role, type, shape, and where its bytes come from (None: zeros, or what the training fills in)."""

ProgramInput = tuple[str, str, str, tuple[int, ...], Source | None, list[int], int]
"""As `NamedValue`, then the instructions before which a frozen tensor is read into the arena, and where in it; none and
0 where the tensor stays in memory of its own."""


class ProgramJob(TypedDict):
    """One program; `memory` holds bytes: arena, frozen, workspace_per_thread, staging, their total, and beside it
    those of files in memory (`memory_files.py`).

    A step is `batch // micro_batch` executions; `data` is the buffer in the arena that holds the examples of one.
    """

    name: str
    path: str
    block: int
    batch: int
    micro_batch: int
    prefix_instructions: int
    instructions: int
    data: NamedValue | None
    inputs: list[ProgramInput]
    tensors: list[NamedValue]
    memory: dict[str, int]


class DataJob(TypedDict):
    """A data set: examples in inherited open files, labels as the bytes of an array of `label_format`.

    Without `image_shape` the one part holds inputs of `input_dtype` and `input_shape`, one behind the other. `targets`
    is how many numbers an example's output is compared with, 0 where that is a label. With `augment` images are cropped
    and turned over at random.
    """

    origin: str
    image_shape: tuple[int, int, int] | None
    input_shape: tuple[int, ...]
    input_dtype: DType
    targets: int
    parts: list[Part]
    labels: bytes
    label_format: str
    augment: bool


CacheDType = Literal["float32", "float16", "int8"]


class CacheJob(TypedDict):
    """A cache of the frozen prefix's outputs, [channels, values] an example; `digest` is of all they depend on.

    It holds every example `versions` times: with the augmentation of the first epoch, of the second, and so on.
    """

    path: str
    digest: str
    dtype: CacheDType
    channels: int
    values: int
    versions: int
    program: ProgramJob


class Job(TypedDict):
    """What `work` does not use keeps the values of `new_job`.

    `hyperparameters` are those of each execution of the first step; with `betas` two of them are AdamW's bias
    corrections, which differ from step to step. `limit_name` is how an error calls the limit. `vocabulary` is how many
    different tokens a model of tokens takes. An evaluation is on `examples` of the data: those whose int64 positions
    are `drawn`, or the first. After `max_seconds` the training ends with the step in progress. `initial_blocks` are
    frozen ones that keep the bundle's initial values.
    """

    work: Literal["train", "bench", "eval", "base"]
    native: str
    program: ProgramJob
    threads: int
    json: bool
    parent: int | None
    limit_bytes: int | None
    limit_kind: LimitKind
    limit_name: str
    check_only: bool
    data: DataJob | None
    cache: CacheJob | None
    examples: int
    drawn: bytes | None
    classes: int
    steps: int
    max_seconds: float | None
    warmup_steps: int
    hyperparameters: list[list[float]]
    betas: tuple[float, float] | None
    vocabulary: int | None
    seed: int
    augment_seed: int
    augment_epoch: int
    output: str | None
    lock: tuple[str, int] | None
    base_version: str
    initial_blocks: list[int]
    checkpoint: str | None
    checkpoint_every: int
    settings: str
    done: int
    loss_first: float | None
    loss_last: float | None
    loss_smoothed: float | None
    state: dict[str, Source]


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
    inputs: list[ProgramInput] = [
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
    job["hyperparameters"] = [
        hyperparameters(optimizer, learning_rate, i, count, step=0, proximal_mu=proximal_mu) for i in range(count)
    ]
    if optimizer.name == "adamw":
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
