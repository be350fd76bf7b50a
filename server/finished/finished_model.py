"""The finished model: an ordinary PyTorch `state_dict` as safetensors, which `load_state_dict(strict=True)` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from device_profiles.errors import FormatError
from device_profiles.files import atomic_file, named
from device_profiles.model import Model

PIXELS = "(pixel / 255 - 0.5) / 0.5"
"""What images are scaled by before the model sees them: 0 to 255 become -1 to 1."""
_IMAGE_RANK = 3


def finished_tensors(model: Model, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Every tensor of the model's `state_dict`, second names of a tensor among them; no output modules.

    Raises FormatError, naming the tensor, where one is missing or has another shape.
    """
    tensors = {}
    for spec in model.tensors:
        source = spec.name if spec.same_as is None else spec.same_as
        if source not in weights:
            raise FormatError(f"finished model: tensor '{source}' is missing")
        value = weights[source]
        if value.shape != spec.shape:
            raise FormatError(f"finished model: tensor '{source}' is {list(value.shape)}, expected {list(spec.shape)}")
        tensors[spec.name] = np.asarray(value, np.int64 if spec.dtype == "int64" else np.float32, order="C")
    return tensors


def finished_metadata(model: Model) -> dict[str, str]:
    """What a user of the file needs to know beside the tensors, as its header says it."""
    described: dict[str, Any] = {
        "name": model.name,
        "classes": model.classes,
        "input_shape": model.input_shape,
        "input_dtype": model.input_dtype,
    }
    if len(model.input_shape) == _IMAGE_RANK and model.input_dtype == "float32":
        described["pixels"] = PIXELS
    return {"model": msgspec.json.encode(described).decode()}


def write_finished(model: Model, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the finished model to `path`, whole or not at all; raises FormatError as `finished_tensors` does."""
    tensors = finished_tensors(model, weights)
    with named(path), atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata=finished_metadata(model))
