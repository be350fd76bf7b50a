"""Inputs that are normalised in the model's own programs, so that every place that runs them agrees."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.errors import UsageError
from device_profiles.model import Normalisation
from device_profiles.settings import Setting

_ATTRIBUTE = "profl_normalisation"


def normalise_inputs(module: nn.Module, normalisation: Normalisation, input_shape: tuple[int, ...]) -> None:
    """Let `module` take (x - mean) / std of its input, channel by channel, or feature by feature.

    Images reach it between -1 and 1; their mean and deviation are those of pixel / 255. Raises UsageError unless there
    is one of each for each channel, all deviations above 0.
    """
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (normalisation.mean, normalisation.std))
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != input_shape[0]:
            raise UsageError(
                (
                    f"has {len(values)} numbers, but ",
                    Setting("input_shape", input_shape),
                    f" has {input_shape[0]} rows",
                ),
                field=key,
                remedy="give one for each channel or feature",
            )
        if not bool(torch.isfinite(values).all()) or (key == "std" and not bool((values > 0).all())):
            raise UsageError("needs finite numbers, deviations above 0", field=key, remedy="correct it")
    if is_of_pixels(input_shape):
        mean, std = 2 * mean - 1, 2 * std
    shift, variance = mean.float(), (std**2).float()

    def normalised(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *others = inputs
        return (functional.batch_norm(first, shift, variance, training=False, eps=0.0), *others)

    module.register_forward_pre_hook(normalised)
    setattr(module, _ATTRIBUTE, normalisation)


def is_of_pixels(input_shape: tuple[int, ...]) -> bool:
    """Whether mean and deviation are those of pixel / 255."""
    return len(input_shape) == 3


def normalisation_of(module: nn.Module) -> Normalisation | None:
    """What `normalise_inputs` was given for the module."""
    given: Normalisation | None = getattr(module, _ATTRIBUTE, None)
    return given
