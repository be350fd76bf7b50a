"""Weights of a model, read from a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from device_profiles.errors import FormatError
from edge_runtime.export.foreign_weights import check_names, refuse_pickle


def read_weights(
    path: Path, expected: Mapping[str, torch.Tensor], *, needed: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file that replace those of `expected` by name, of the same types.

    Raises FormatError, naming the file and the tensors, for another shape, for names that are not the model's, and
    where one of `needed` is missing: all that are expected, by default.
    """
    refuse_pickle(path)
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: is not safetensors: {error}") from None
    check_names(path, found, expected, needed=expected if needed is None else needed)
    weights = {}
    for name, tensor in expected.items():
        if name not in found:
            continue
        if found[name].shape != tensor.shape:
            raise FormatError(f"{path}: tensor '{name}' is {list(found[name].shape)}, the model's {list(tensor.shape)}")
        weights[name] = found[name].to(tensor.dtype)
    return weights
