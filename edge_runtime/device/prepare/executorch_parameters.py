"""What an application trained with ExecuTorch's TrainingModule, as an update of the bundle's own training program.

The application writes its parameters as safetensors, by the names that `namedParameters` has, with how they were
trained as metadata (docs/phones.md). Running statistics are taken where the file has them; they keep the values that
the training started from where it has not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.contract import TRAINED_ROLES
from device_profiles.errors import FormatError
from device_profiles.manifest import Program, ProgramTensor
from device_profiles.update import UpdateMetadata
from device_profiles.wrong_values import explained
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.worker.files import write_tensors

_FORMATS: dict[str, tuple[Any, int]] = {"float32": ("f", 4), "int64": ("q", 8), "bfloat16": ("H", 2)}


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """How the parameters were trained, as text in the file's metadata: `examples` of the data set, `steps` made, losses
    of the first and of the last step, and how many examples were trained on, with repetitions."""

    examples: int
    steps: int
    loss_first: float
    loss_last: float
    examples_done: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An update that was written; `kept` are running statistics that keep their values of before."""

    metadata: UpdateMetadata
    kept: list[str]


def import_parameters(parameters: Path, program: Program, weights: LaidWeights, output: Path) -> Imported:
    """Write the update of `program` that `parameters` are, for a training that started from `weights`.

    Raises FormatError, naming the file and the tensor or the number, where they are not what the program trains.
    """
    file = TensorFile(parameters)
    trained = _trained(file.metadata, parameters)
    tensors = [tensor for tensor in program.tensors if tensor.role in TRAINED_ROLES]
    strange = sorted(set(file.names()) - {tensor.name for tensor in tensors})
    if strange:
        raise FormatError(
            f"{parameters}: tensor '{strange[0]}' is not one that {program.name} trains",
            remedy="give the parameters of this block, from a program of the same model and blocks",
        )
    kept = [tensor.name for tensor in tensors if tensor.role == "running_statistic" and tensor.name not in file]
    views = []
    for tensor in tensors:
        if tensor.name in kept:
            source = weights.place(tensor.name, tensor.dtype, tensor.shape)
        else:
            file.check(tensor.name, tensor.dtype, tensor.shape)
            source = file.place(tensor.name)
        views.append((tensor.name, tensor.dtype, _read(source, tensor, parameters)))
    file.close()
    metadata = UpdateMetadata(
        block=program.block,
        program=program.name,
        examples=trained.examples,
        steps=trained.steps,
        base_version=weights.version(),
        loss_first=trained.loss_first,
        loss_last=trained.loss_last,
        examples_done=trained.steps * program.batch if trained.examples_done is None else trained.examples_done,
    )
    write_tensors(str(output), views, metadata.to_strings())
    return Imported(metadata=metadata, kept=kept)


def _trained(metadata: Mapping[str, str], path: Path) -> Trained:
    try:
        trained = msgspec.convert(dict(metadata), Trained, strict=False)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"{path}: metadata: {explained(error, Trained)}",
            remedy="write examples, steps, loss_first and loss_last as docs/phones.md shows",
        ) from None
    for name in ("examples", "steps"):
        if getattr(trained, name) < 1:
            raise FormatError(f"{path}: metadata: {name} is below 1")
    for name in ("loss_first", "loss_last"):
        if getattr(trained, name) - getattr(trained, name) != 0:
            raise FormatError(f"{path}: metadata: {name} is not finite; train again with a smaller rate")
    return trained


def _read(source: tuple[str, int, int], tensor: ProgramTensor, parameters: Path) -> memoryview[Any]:
    """A tensor's numbers, of its shape; raises FormatError where one is not finite."""
    from edge_runtime.device import _native

    path, offset, size = source
    with open(path, "rb") as file:
        content = memoryview(bytearray(os.pread(file.fileno(), size, offset)))
    code, _ = _FORMATS[tensor.dtype]
    if code == "f" and size and not _native.is_finite(content.cast("f")):
        raise FormatError(
            f"{parameters}: tensor '{tensor.name}' has a value that is not finite",
            remedy="train again with a smaller rate",
        )
    return content.cast(code, tensor.shape)
