"""The activations that kernels carry, as PyTorch has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from edge_runtime.export.operators.activation import ACTIVATIONS
from tests.support.geometries.draw import Draw

Function = Callable[[torch.Tensor, float], torch.Tensor]

PLAIN: dict[str, Function] = {
    "none": lambda x, _: x * 1.0,
    "relu": lambda x, _: functional.relu(x),
    "relu6": lambda x, _: functional.relu6(x),
    "silu": lambda x, _: functional.silu(x),
    "hardswish": lambda x, _: functional.hardswish(x),
    "hardsigmoid": lambda x, _: functional.hardsigmoid(x),
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "tanh": lambda x, _: torch.tanh(x),
    "mish": lambda x, _: functional.mish(x),
}
"""Those without a parameter, which other kernels carry as well."""
ALL: dict[str, Function] = {
    **PLAIN,
    "leaky_relu": functional.leaky_relu,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "absolute": lambda x, _: x.abs(),
    "exponential": lambda x, _: x.exp(),
    "logarithm": lambda x, _: x.log(),
    "square_root": lambda x, _: x.sqrt(),
    "inverse_root": lambda x, _: x.rsqrt(),
    "reciprocal": lambda x, _: x.reciprocal(),
    "at_least": lambda x, limit: x.clamp(min=limit),
    "at_most": lambda x, limit: x.clamp(max=limit),
}
POSITIVE = frozenset({"logarithm", "square_root", "inverse_root", "reciprocal"})
"""What is asked of positive numbers only, not too near 0 where they have no bounds."""

KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "relu6": (0.0, 6.0),
    "hardswish": (-3.0, 3.0),
    "hardsigmoid": (-3.0, 3.0),
}
"""Where a gradient jumps, so that the last digit of an input decides."""


def drawn(draw: Draw, functions: Mapping[str, Function]) -> tuple[str, int]:
    """Name and number of an activation."""
    name = draw.pick(list(functions))
    return name, ACTIVATIONS[name]


def near_a_kink(name: str, x: torch.Tensor, margin: float) -> bool:
    """Whether rounding may decide about a gradient."""
    return any(bool(((x - kink).abs() <= margin).any()) for kink in KINKS.get(name, ()))
