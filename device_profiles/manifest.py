"""The bundle's manifest: everything a device needs to know about a folder of programs and weights."""

from __future__ import annotations

import math
from typing import ClassVar

import msgspec

from device_profiles.contract import (
    FORMAT_VERSION,
    ITEM_BYTES,
    DType,
    InputRole,
    LossName,
    Role,
    Variant,
)
from device_profiles.errors import FormatError, UsageError
from device_profiles.loads import Loads
from device_profiles.manifest_checks import check_files, check_model, check_programs
from device_profiles.model import Model, Partition
from device_profiles.optimizers import OPTIMIZERS, OptimizerName
from device_profiles.trades import trade_named
from device_profiles.work import ProgramWork, block_of, label


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes a program needs, known before anything runs.

    `arena_bytes` holds everything the plan places, the batch of examples included. `live_bytes` is the largest sum of
    tensors that must live at once; `arena_bytes / live_bytes` says how well they were packed. The five parts say what
    is alive at that instant and add up to `live_bytes`; running statistics count as parameters, frozen weights as
    temporaries. `frozen_bytes` is what the small frozen tensors take, which stay in memory of their own; the large ones
    are in the arena while they are read. `staging_bytes` are inputs outside of the arena: labels and hyperparameters.
    """

    arena_bytes: int
    live_bytes: int
    frozen_bytes: int
    workspace_bytes_per_thread: int
    staging_bytes: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_state_bytes: int
    activations_bytes: int
    temporaries_bytes: int

    def total_bytes(self, threads: int) -> int:
        """What the process needs beside its base: arena, frozen weights, workspace and staging."""
        return self.arena_bytes + self.frozen_bytes + self.workspace_bytes_per_thread * threads + self.staging_bytes


class ProgramInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of `execute()`, in the program's order. A `frozen` input is named by its state_dict name.

    The `data` input lies in the arena as a buffer of its name, is written before every execution and may be overwritten
    by it; all others are pointed at the caller's arrays. A frozen tensor with `read_before` is used by these
    instructions alone: before each of them it is read from its file to `arena_offset`; after it, the bytes are others'.
    """

    name: str
    role: InputRole
    dtype: DType
    shape: tuple[int, ...]
    read_before: tuple[int, ...] = ()
    arena_offset: int | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class ProgramTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mutable buffer of the program, read and written by `name`; optimizer state and gradient sums start at zero."""

    name: str
    role: Role
    dtype: DType
    shape: tuple[int, ...]


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Optimizer of a training program; the device fills its hyperparameters in for every execution.

    `momentum_dtype` is how the momentum is stored; it is computed with in float32. `beta1`, `beta2` and `eps` are
    AdamW's. `clip_norm` is the largest norm of all gradients together, 0 where they are not clipped. With `proximal`
    the gradient of every parameter gains mu (parameter - the one the training started from), FedProx's proximal term;
    mu is given at run time, and the start is read from the mapped weights.
    """

    name: OptimizerName
    momentum: float = 0.0
    weight_decay: float = 0.0
    momentum_dtype: DType = "float32"
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.0
    proximal: bool = False

    @property
    def sums_in_momentum(self) -> bool:
        """Whether the gradients of micro-batches can be summed in the momentum, which costs no memory.

        Else each gradient has a sum of its own, and the update waits for the last micro-batch.
        """
        return OPTIMIZERS[self.name].sums_in_momentum and not self.nesterov and self.clip_norm == 0


def hyperparameter_count(optimizer: Optimizer) -> int:
    """Numbers in the hyperparameters of a program with this optimizer."""
    return OPTIMIZERS[optimizer.name].hyperparameters + optimizer.proximal


class Loss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What training minimises: the mean cross-entropy, with labels smoothed, or the mean squared error.

    That of a `distill` program is the mean squared error between the logits of teacher and student.
    """

    name: LossName = "cross-entropy"
    label_smoothing: float = 0.0


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `.pte`: a whole training step, or an evaluation, of one block (1-based) with its output module.

    Outputs: a training program returns the loss (scalar, float32); an `eval` program returns the logits
    ([batch, classes], float32), a `features` program the input of its block ([batch, ...], float32). The first
    `prefix_instructions` instructions are the frozen prefix. A step of `batch` examples is `batch / micro_batch`
    executions, and its loss the sum of theirs; statistics of BatchNorm are then those of each micro-batch. A `distill`
    program takes no labels. A
    tensor may be there twice under one name, as it was in the weights (an input of the role `frozen`) and as it is
    trained (a mutable buffer). `loads` are of one step; bundles of earlier releases state none.
    """

    name: str
    work: ProgramWork
    block: int
    batch: int
    micro_batch: int
    variant: Variant
    optimizer: Optimizer | None
    loss: Loss = Loss()
    inputs: tuple[ProgramInput, ...]
    tensors: tuple[ProgramTensor, ...]
    prefix_instructions: int
    instructions: int
    memory: MemoryPlan
    loads: Loads = {}

    @property
    def counted_labels(self) -> int:
        """Labels of a step whose last hyperparameter says how many of them count; 0 where it says nothing of the kind.

        It does where an example has several labels and a step several executions, over all of which the mean is.
        """
        several = (value for value in self.inputs if value.role == "label" and value.dtype == "int64")
        shape = next((value.shape for value in several), ())
        return self.batch // self.micro_batch * math.prod(shape) if self.micro_batch < self.batch and shape[1:] else 0

    @property
    def frozen_tensors(self) -> int:
        """How many tensors it reads from the file of weights."""
        return sum(value.role == "frozen" for value in self.inputs)


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the bundle, with its path relative to the bundle."""

    path: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`manifest.json` of a bundle. Program `p` lies in `programs/<p.name>.pte`."""

    TITLE: ClassVar[str] = "bundle manifest"

    format_version: int = FORMAT_VERSION
    created_by: str
    model: Model
    partition: Partition
    programs: tuple[Program, ...]
    files: tuple[FileEntry, ...]

    def program(self, name: str) -> Program:
        """The program called `name`; raises UsageError with the names there are."""
        for candidate in self.programs:
            if candidate.name == name:
                return candidate
        known = ", ".join(p.name for p in self.programs)
        raise UsageError(f"the bundle has no program '{name}' (it has: {known})")

    def check(self, source: str) -> None:
        """Raise FormatError, naming `source`, where the parts of the manifest contradict each other."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"{source}: format_version {self.format_version} is not known here (this release reads "
                f"{FORMAT_VERSION})"
            )
        check_model(self.model, f"{source}: model")
        check_files(self.files, source)
        self.partition.check(len(self.model.units), f"{source}: partition")
        names = [p.name for p in self.programs]
        if len(set(names)) != len(names):
            raise FormatError(f"{source}: programs: two programs carry the same name")
        paths = {f.path for f in self.files}
        for path in paths:
            if path.startswith("/") or ".." in path.split("/"):
                raise FormatError(f"{source}: files: path '{path}' leaves the bundle")
        for program in self.programs:
            if not 1 <= program.block <= len(self.partition.blocks):
                raise FormatError(
                    f"{source}: programs: {program.name} is for block {program.block}, which does not exist"
                )
            if block_of(program.work, self.partition) != program.block:
                raise FormatError(f"{source}: programs: {program.name}: work is not about block {program.block}")
            if trade_named(program.name, label(program.work, self.partition, program.variant)) is None:
                raise FormatError(f"{source}: programs: {program.name}: is no name for its work")
            if f"programs/{program.name}.pte" not in paths:
                raise FormatError(f"{source}: files: programs/{program.name}.pte is missing")
            for value in program.inputs:
                _check_read_anew(value, program, f"{source}: programs: {program.name}: input '{value.name}'")
        check_programs(self.programs, source)


def _check_read_anew(value: ProgramInput, program: Program, where: str) -> None:
    if (value.arena_offset is not None) != bool(value.read_before):
        raise FormatError(f"{where}: read_before and arena_offset belong together")
    if value.arena_offset is None:
        return
    if value.role != "frozen":
        raise FormatError(f"{where}: only frozen tensors are read before instructions")
    if not 0 <= value.arena_offset <= program.memory.arena_bytes - value.size_bytes:
        raise FormatError(f"{where}: its place is outside of the arena")
    if not all(0 <= at < program.instructions for at in value.read_before):
        raise FormatError(f"{where}: it is read before instructions that are not there")
