"""The finished model: an ordinary PyTorch `state_dict`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from device_profiles.bundle import Manifest
from device_profiles.errors import FormatError


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
