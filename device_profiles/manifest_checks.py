"""What a manifest must satisfy before anything of it is used: bundles are input from strangers.

Here its parts are held against each other. When a program is loaded, the runtime holds them against the program itself.
The structs are passed as they are; this module does not import them, so that they can call it from their own `check`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from device_profiles.contract import (
    ITEM_BYTES,
    RANDOM_INPUT,
    WORKSPACE_BYTES_PER_THREAD,
)
from device_profiles.errors import FormatError
from device_profiles.loads import check_loads
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.profile_checks import check_fields

_LARGEST_BYTES = 1 << 53
_LARGEST_COUNT = (1 << 31) - 1
"""Of examples, classes, instructions and the elements of a tensor, as in operators.txt."""
_MOST_DIMENSIONS = 8
_MOST_PROGRAMS = 10_000
_MOST_MICRO_BATCHES = 1 << 16
_ALIGNMENT_BYTES = 64
"""Frozen tensors that stay in memory begin at multiples of this."""
_COUNTS = ("block", "batch", "micro_batch", "instructions")


def check_model(model: Any, where: str) -> None:
    """Sizes and names of the model; raises FormatError."""
    check_fields(model, where)
    _check_count(model.classes, f"{where}: classes")
    if model.vocabulary is not None:
        _check_count(model.vocabulary, f"{where}: vocabulary")
    _check_shape(model.input_shape, f"{where}: input_shape")
    for unit in model.units:
        check_fields(unit, f"{where}: units")
        for name in ("input_shape", "output_shape"):
            _check_shape(getattr(unit, name), f"{where}: units: {unit.name}: {name}")
    _check_tensors(model.tensors, f"{where}: tensors")


def check_files(files: Any, where: str) -> None:
    """Sizes, digests and paths of the files; raises FormatError."""
    paths = set()
    for entry in files:
        check_fields(entry, f"{where}: files")
        if not re.fullmatch(r"[0-9a-f]{64}", entry.sha256):
            raise FormatError(f"{where}: files: {entry.path}: sha256 is not a SHA-256 in hexadecimal")
        if entry.path in paths:
            raise FormatError(f"{where}: files: {entry.path} is listed twice")
        paths.add(entry.path)


def check_programs(programs: Any, where: str) -> None:
    """All programs; raises FormatError."""
    if len(programs) > _MOST_PROGRAMS:
        raise FormatError(f"{where}: programs: has {len(programs)}; at most {_MOST_PROGRAMS} are allowed")
    for program in programs:
        check_fields(program, f"{where}: programs")
        if "/" in program.name or program.name.startswith("."):
            raise FormatError(f"{where}: programs: '{program.name}' is not a valid program name")
        _check_program(program, f"{where}: programs: {program.name}")


def _check_program(program: Any, where: str) -> None:
    for name in _COUNTS:
        _check_count(getattr(program, name), f"{where}: {name}")
    if program.batch % program.micro_batch != 0:
        raise FormatError(f"{where}: batch {program.batch} is not a multiple of micro_batch {program.micro_batch}")
    if program.batch // program.micro_batch > _MOST_MICRO_BATCHES:
        raise FormatError(f"{where}: batch is more than {_MOST_MICRO_BATCHES} times micro_batch")
    if program.prefix_instructions > program.instructions:
        raise FormatError(f"{where}: prefix_instructions exceeds instructions")
    _check_tensors(program.inputs, f"{where}: inputs")
    _check_tensors(program.tensors, f"{where}: tensors")
    for value in program.inputs:
        _check_input(value, program, f"{where}: inputs: {value.name}")
    for role in ("data", "label", "hyperparameter", "random"):
        if sum(value.role == role for value in program.inputs) > 1:
            raise FormatError(f"{where}: inputs: two of them have the role {role}")
    _check_optimizer(program, where)
    _check_memory(program, f"{where}: memory")
    check_loads(program.loads, f"{where}: loads")


def _check_input(value: Any, program: Any, where: str) -> None:
    if value.role == "data" and (not value.shape or value.shape[0] != program.micro_batch):
        raise FormatError(f"{where}: its first extent is not micro_batch {program.micro_batch}")
    if value.role == "label" and value.dtype != ("float32" if program.loss.name == "mse" else "int64"):
        raise FormatError(f"{where}: labels of type {value.dtype} do not suit the loss {program.loss.name}")
    if value.role == "random" and (value.name, value.dtype, value.shape) != (RANDOM_INPUT, "int64", (2,)):
        raise FormatError(f"{where}: must be int64 of shape 2: a seed and the number of the execution")
    if value.role == "frozen" and value.dtype not in ("float32", "bfloat16"):
        raise FormatError(f"{where}: frozen tensors must be float32 or bfloat16")


def _check_optimizer(program: Any, where: str) -> None:
    given = [value for value in program.inputs if value.role == "hyperparameter"]
    if (program.optimizer is None) != (not given):
        raise FormatError(f"{where}: a program has both an optimizer and an input of hyperparameters, or neither")
    if program.optimizer is None:
        if program.micro_batch != program.batch:
            raise FormatError(f"{where}: micro_batch is not batch, but there is no optimizer")
        return
    check_fields(program.optimizer, f"{where}: optimizer")
    check_fields(program.loss, f"{where}: loss")
    optimizer = program.optimizer
    apart = program.batch != program.micro_batch and not optimizer.sums_in_momentum
    count = OPTIMIZERS[optimizer.name].hyperparameters + optimizer.proximal + apart + (program.counted_labels > 0)
    if (given[0].dtype, given[0].shape) != ("float32", (count,)):
        raise FormatError(f"{where}: inputs: {given[0].name}: {optimizer.name} takes {count} float32 hyperparameters")


def _check_memory(program: Any, where: str) -> None:
    memory = program.memory
    check_fields(memory, where)
    if memory.workspace_bytes_per_thread != WORKSPACE_BYTES_PER_THREAD:
        raise FormatError(f"{where}: workspace_bytes_per_thread is not the runtime's {WORKSPACE_BYTES_PER_THREAD}")
    outside = [value for value in program.inputs if value.arena_offset is None and value.role != "data"]
    staging = sum(value.size_bytes for value in outside if value.role != "frozen")
    frozen = sum(
        -(-value.size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for value in outside if value.role == "frozen"
    )
    for name, stated, needed in (
        ("staging_bytes", memory.staging_bytes, staging),
        ("frozen_bytes", memory.frozen_bytes, frozen),
    ):
        if stated != needed:
            raise FormatError(f"{where}: {name} is {stated}, but the program's inputs take {needed}")
    if memory.live_bytes > memory.arena_bytes:
        raise FormatError(f"{where}: live_bytes exceeds arena_bytes")


def _check_tensors(tensors: Iterable[Any], where: str) -> None:
    names: set[str] = set()
    for tensor in tensors:
        check_fields(tensor, where)
        if not tensor.name or tensor.name in names:
            raise FormatError(f"{where}: '{tensor.name}' appears twice, or is empty")
        names.add(tensor.name)
        _check_shape(tensor.shape, f"{where}: {tensor.name}: shape", ITEM_BYTES[tensor.dtype])


def _check_shape(shape: tuple[int, ...], where: str, item_bytes: int = 1) -> None:
    if len(shape) > _MOST_DIMENSIONS:
        raise FormatError(f"{where}: has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} are allowed")
    for extent in shape:
        _check_count(extent, where)
    if math.prod(shape) > _LARGEST_COUNT or math.prod(shape) * item_bytes > _LARGEST_BYTES:
        raise FormatError(f"{where}: {'x'.join(map(str, shape))} is larger than any memory")


def _check_count(value: int, where: str) -> None:
    if not 1 <= value <= _LARGEST_COUNT:
        raise FormatError(f"{where} is {value}, must be 1 to {_LARGEST_COUNT}")
