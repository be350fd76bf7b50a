"""The finished model: an ordinary PyTorch `state_dict`, and weights read back from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from device_profiles.errors import FormatError


def read_weights(path: Path, expected: Mapping[str, torch.Tensor], *, complete: bool) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file that replace those of `expected` by name; others in the file are left alone.

    Raises FormatError, naming the file and the tensor, for another shape, and where one is missing if `complete`.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: {error}") from None
    weights = {}
    for name, tensor in expected.items():
        if name not in found:
            if complete:
                raise FormatError(
                    f"{path}: tensor '{name}' is missing; give a whole model, such as a run's model.safetensors"
                )
            continue
        if found[name].shape != tensor.shape:
            raise FormatError(f"{path}: tensor '{name}' is {list(found[name].shape)}, the model's {list(tensor.shape)}")
        weights[name] = found[name].to(tensor.dtype)
    if not weights:
        raise FormatError(f"{path}: holds no tensor of the model")
    return weights
