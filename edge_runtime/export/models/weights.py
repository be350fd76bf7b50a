"""Weights of a model, read from a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from device_profiles.contract import CONSTANT_PREFIX, STAND_IN_PREFIX
from device_profiles.errors import FormatError
from device_profiles.weights_file import HEAD_BYTES, check_is_no_other, check_tensors

_NAMED = 3
"""Tensors that an error names before it counts the others."""


def read_weights(
    path: Path, expected: Mapping[str, torch.Tensor], *, needed: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file that replace those of `expected` by name, of the same types.

    What bundles and rounds have beside the model is left alone. Raises FormatError, naming the file and the tensors,
    for another shape, for names that are not the model's, and where one of `needed` is missing: all that are expected,
    by default.
    """
    found = _load(path)
    beside = (STAND_IN_PREFIX, CONSTANT_PREFIX)
    own = {name: tensor for name, tensor in found.items() if name in expected or not name.startswith(beside)}
    check_tensors(
        path,
        {name: (_type(tensor), tuple(tensor.shape)) for name, tensor in own.items()},
        {name: (_type(tensor), tuple(tensor.shape)) for name, tensor in expected.items()},
    )
    missing = [name for name in (expected if needed is None else needed) if name not in own]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise FormatError(
            f"{path}: tensor {', '.join(repr(name) for name in missing[:_NAMED])}{more} is missing; give a whole "
            "model, such as a run's model.safetensors or what 'profl-server finish' writes"
        )
    return {name: tensor.to(expected[name].dtype) for name, tensor in own.items()}


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            check_is_no_other(path, file.read(HEAD_BYTES))
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"{path}: not a safetensors file: {reason}") from None


def _type(tensor: torch.Tensor) -> str:
    """Its type as far as it matters here: any floating type is converted."""
    return "float32" if tensor.is_floating_point() else "int64"
