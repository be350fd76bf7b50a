"""The finished model: an ordinary PyTorch `state_dict` as safetensors, which `load_state_dict(strict=True)` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from device_profiles.contract import lora_names
from device_profiles.errors import FormatError
from device_profiles.files import atomic_file, named
from device_profiles.model import Model

PIXELS = "(pixel / 255 - 0.5) / 0.5"
"""What images are scaled by before the model sees them: 0 to 255 become -1 to 1."""
NORMALISED = "(pixel / 255 - mean) / std"
"""The same where the bundle has a mean and a deviation of each channel."""
_IMAGE_RANK = 3


def finished_tensors(model: Model, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Every tensor of the model's `state_dict`, second names of a tensor among them; no output modules.

    Raises FormatError, naming the tensor, where one is missing or has another shape.
    """
    tensors = {}
    merged = _merged(model, weights)
    adapters = {name for weight in merged for name in lora_names(weight)}
    for spec in model.tensors:
        if spec.name in adapters:
            continue
        source = spec.name if spec.same_as is None else spec.same_as
        if source not in weights:
            raise FormatError(f"finished model: tensor '{source}' is missing")
        value = merged[source] if source in merged else weights[source]
        if value.shape != spec.shape:
            raise FormatError(f"finished model: tensor '{source}' is {list(value.shape)}, expected {list(spec.shape)}")
        tensors[spec.name] = np.asarray(value, np.int64 if spec.dtype == "int64" else np.float32, order="C")
    return tensors


def _merged(model: Model, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Weights with adapters, and these added to them; raises FormatError where a matrix is missing."""
    if model.lora is None:
        return {}
    merged = {}
    for name in model.lora.weights:
        missing = [part for part in (name, *lora_names(name)) if part not in weights]
        if missing:
            raise FormatError(f"finished model: tensor '{missing[0]}' is missing")
        first, second = (np.asarray(weights[part], np.float64) for part in lora_names(name))
        merged[name] = weights[name] + model.lora.scale * (second @ first)
    return merged


def finished_metadata(model: Model) -> dict[str, str]:
    """What a user of the file needs to know beside the tensors, as its header says it."""
    described: dict[str, Any] = {
        "name": model.name,
        "classes": model.classes,
        "input_shape": model.input_shape,
        "input_dtype": model.input_dtype,
    }
    if len(model.input_shape) == _IMAGE_RANK and model.input_dtype == "float32":
        described["pixels"] = PIXELS if model.normalisation is None else NORMALISED
    if model.normalisation is not None:
        described["mean"], described["std"] = model.normalisation.mean, model.normalisation.std
    return {"model": msgspec.json.encode(described).decode()}


def write_finished(model: Model, weights: Mapping[str, NDArray[Any]], path: Path) -> int:
    """Write the finished model to `path`, whole or not at all; how many tensors it has.

    Raises FormatError as `finished_tensors` does.
    """
    tensors = finished_tensors(model, weights)
    with named(path), atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata=finished_metadata(model))
    return len(tensors)
