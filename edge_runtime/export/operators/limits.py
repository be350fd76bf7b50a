"""Limits: numbers have kernels of their own, tensors are compared element by element."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edge_runtime.export.ir.formula import applied, operand
from edge_runtime.export.ir.layers import CapturedNode, Layer

X, Y = operand(0), operand(1)
_AT_LEAST, _AT_MOST = (applied("choose", applied("greater", *order), Y, X) for order in ((Y, X), (X, Y)))
"""The second where it is beyond the first: the first takes the gradient where both are equal."""
_SOFTPLUS_THRESHOLD = 20.0
"""PyTorch's default: from there on softplus is its argument to the last bit."""


def _capture_clamp(call: CapturedNode) -> Layer:
    """`hardtanh` and `clamp` by one limit after the other; ReLU and ReLU6 where they are these."""
    names = (("min", "min_val"), ("max", "max_val"))
    low, high = (call.arguments.get(name, call.arguments.get(other)) for name, other in names)
    if any(isinstance(limit, torch.fx.Node) for limit in (low, high)):
        return _limited(call)
    x = call.activation("self")
    if low == 0 and high in (None, 6):
        return call.layer("activation", (x,), activation="relu" if high is None else "relu6", parameter=0.0)
    if low is not None and high is not None:
        x = call.step("activation", (x,), call.output_shape, activation="at_least", parameter=float(low))
    name, limit = ("at_least", low) if high is None else ("at_most", high)
    assert limit is not None  # PyTorch asks for one of them
    return call.layer("activation", (x,), activation=name, parameter=float(limit))


def _limited(call: CapturedNode) -> Layer:
    x, shape = call.activation("self"), call.output_shape
    for name, rule in (("min", _AT_LEAST), ("max", _AT_MOST)):
        if call.arguments.get(name) is not None:
            x = call.step("expression", (x, call.activation(name)), shape, formula=rule)
    return call.layer("reshape", (x,))


def _capture_softplus(call: CapturedNode) -> Layer:
    x, beta, threshold = call.activation("self"), float(call.arguments["beta"]), float(call.arguments["threshold"])
    if threshold >= _SOFTPLUS_THRESHOLD:
        return call.layer("activation", (x,), activation="softplus", parameter=beta)
    curve = applied("logarithm_of_one_more", applied("exponential", X * beta)) * (1.0 / beta)
    return call.layer("expression", (x,), formula=applied("choose", applied("greater", X * beta, threshold), X, curve))


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **dict.fromkeys(("hardtanh", "clamp", "clamp_min", "clamp_max", "clip"), _capture_clamp),
    "softplus": _capture_softplus,
}
EMITTERS: dict[str, Callable[..., object]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
