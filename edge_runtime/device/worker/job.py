"""A job: all that the training process needs to know, as plain values that `marshal` writes.

The process that prepares a job reads and checks manifests, headers and options with whatever makes that safe, and ends
in (or waits for) the training process, which imports none of it. These are only its types.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from device_profiles.contract import DType, LimitKind

Source = tuple[str, int, int]
"""Where the bytes of a tensor lie: path, offset, size."""

Part = tuple[int, int, int, int] | tuple[int, bytes]
"""Images of a file: its descriptor, then offset of the first, bytes between two and their number; or their offsets."""

NamedValue = tuple[str, str, str, tuple[int, ...], Source | None]
"""Name, role, type, shape, and where its bytes come from (None: zeros, or what the training fills in)."""

JobInput = tuple[str, str, str, tuple[int, ...], Source | None, list[int], int]
"""As `NamedValue`, then the instructions before which a frozen tensor is read into the arena, and where in it; none and
0 where the tensor stays in memory of its own."""


class ProgramJob(TypedDict):
    """One program; `memory` holds bytes: arena, frozen, workspace_per_thread, staging, their total, and beside it
    those of files in memory (`memory_files.py`).

    A step is `batch // micro_batch` executions; `data` is the buffer in the arena that holds the examples of one. Where
    it `counts_labels`, its last hyperparameter is how many labels of the step's examples count.
    """

    name: str
    path: str
    block: int
    batch: int
    micro_batch: int
    counts_labels: bool
    prefix_instructions: int
    instructions: int
    data: NamedValue | None
    inputs: list[JobInput]
    tensors: list[NamedValue]
    memory: dict[str, int]


class DataJob(TypedDict):
    """A data set: examples in inherited open files, labels as the bytes of an array of `label_format`.

    Without `image_shape` the one part holds inputs of `input_dtype` and `input_shape`, one behind the other. `targets`
    is how many numbers, or labels, an example's output is compared with, 0 where that is one label. With
    `augment` images are cropped and turned over at random.
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
