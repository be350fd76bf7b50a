"""The finished model: an ordinary PyTorch `state_dict`, and weights read back from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from device_profiles.bundle import Manifest
from device_profiles.contract import CONSTANT_PREFIX, STAND_IN_PREFIX
from device_profiles.errors import FormatError, UsageError
from device_profiles.model import Model, Partition
from device_profiles.weights_file import HEAD_BYTES, check_is_no_other, check_tensors

_OF_BUNDLES = (STAND_IN_PREFIX, CONSTANT_PREFIX)


def assemble_state(manifest: Manifest, tensors: Mapping[str, torch.Tensor | np.ndarray]) -> dict[str, torch.Tensor]:
    """The model's tensors by PyTorch's names and dtypes, without output modules; loadable with `load_state_dict`.

    Raises FormatError, naming the tensor, when one is missing or has another shape.
    """
    state = {}
    for spec in manifest.model.tensors:
        if spec.name not in tensors:
            raise FormatError(f"assembled model: tensor {spec.name} is missing")
        value = torch.as_tensor(np.asarray(tensors[spec.name]))
        if tuple(value.shape) != spec.shape:
            raise FormatError(f"assembled model: {spec.name} has shape {tuple(value.shape)}, not {spec.shape}")
        state[spec.name] = value.to(torch.int64 if spec.dtype == "int64" else torch.float32).contiguous()
    return state


def read_weights(paths: Sequence[Path], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of safetensors files, each laid over those before it, that replace those of `expected` by name.

    Output modules and constants of a bundle are left alone where `expected` has none.
    Raises FormatError, naming the file, the tensor and the remedy, for a file that holds anything but tensors of
    `expected`.
    """
    wanted = {name: _described(tensor) for name, tensor in expected.items()}
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        found = _load(path)
        if not any(name.startswith(_OF_BUNDLES) for name in expected):
            found = {name: tensor for name, tensor in found.items() if not name.startswith(_OF_BUNDLES)}
        check_tensors(path, {name: _described(tensor) for name, tensor in found.items()}, wanted)
        weights |= found
    return weights


def check_complete(paths: Sequence[Path], weights: Mapping[str, torch.Tensor], names: Iterable[str]) -> None:
    """Raise FormatError for a tensor of the model that no file holds."""
    for name in names:
        if name not in weights:
            raise FormatError(
                f"{paths[-1]}: tensor '{name}' is missing; give a whole model, such as a run's model.safetensors, or "
                "the updates of all blocks in order (--weights FIRST --weights SECOND)"
            )


def check_frozen_blocks(
    weights: Mapping[str, torch.Tensor], model: Model, partition: Partition, last: int, *, initial_allowed: bool
) -> None:
    """Raise UsageError for blocks before `last` (1-based), which its program freezes, that no file holds."""
    missing = []
    for block in partition.blocks[: last - 1]:
        names = [name for unit in model.units[block.first_unit : block.last_unit + 1] for name in unit.tensors]
        if not any(name in weights for name in names):
            missing.append(str(block.index))
    if missing and not initial_allowed:
        raise UsageError(
            f"--weights: no file holds block{'s' * (len(missing) > 1)} {', '.join(missing)}, frozen in the program of "
            f"block {last}; give the updates of earlier steps before these, in order (--weights FIRST --weights "
            "SECOND), or give --initial-prefix to keep the initial values"
        )


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            check_is_no_other(path, file.read(HEAD_BYTES))
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: {error}") from None


def _described(tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
