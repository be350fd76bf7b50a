"""Activations, element by element, and the names by which other kernels take them over."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered

ACTIVATIONS = {
    "none": 0,
    "relu": 1,
    "relu6": 2,
    "leaky_relu": 3,
    "silu": 4,
    "hardswish": 5,
    "hardsigmoid": 6,
    "sigmoid": 7,
    "tanh": 8,
}
"""Number of each activation in a program; `csrc/kernels/activation.h` has the same."""

FUSED = frozenset(ACTIVATIONS) - {"none", "leaky_relu"}
"""Those without a parameter, which normalisations and frozen convolutions apply to what they store."""


def _capture(name: str) -> Callable[[CapturedNode], Layer]:
    return lambda call: _layer(call, name)


def _layer(call: CapturedNode, name: str, parameter: float = 0.0) -> Layer:
    return call.layer("activation", (call.activation("self"),), activation=name, parameter=parameter)


def _capture_leaky_relu(call: CapturedNode) -> Layer:
    return _layer(call, "leaky_relu", float(call.arguments["negative_slope"]))


def _capture_clamp(call: CapturedNode) -> Layer:
    """`hardtanh` and `clamp` where they are ReLU or ReLU6."""
    names = (("min", "min_val"), ("max", "max_val"))
    low, high = (call.arguments.get(name, call.arguments.get(other)) for name, other in names)
    if low != 0 or high not in (None, 6):
        raise NotCovered("limits other than 0 and 6")
    return _layer(call, "relu" if high is None else "relu6")


def _activation(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    how = (ACTIVATIONS[layer.attributes["activation"]], float(layer.attributes["parameter"]))

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("activation", (x, *how), (y,))
        return y

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        return [(x, activation_gradient(builder, layer, gradient, builder.again(x)))]

    return builder.record(builder.derived((x,), compute), rule)


def activation_gradient(builder: StepBuilder, layer: Layer, gradient: Value, x: Value) -> Value:
    """The gradient of the input `x` of the activation that `layer` is or carries."""
    how = (ACTIVATIONS[layer.attributes["activation"]], float(layer.attributes.get("parameter", 0.0)))
    result = builder.new(f"{layer.module}.input_gradient", x.shape)
    builder.graph.emit("activation_backward", (gradient, x, *how), (result,))
    return result


def fused_activation(layer: Layer) -> int:
    """The number of the activation that a layer carries (see `fusion.py`)."""
    return ACTIVATIONS[layer.attributes["activation"]]


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **{name: _capture(name) for name in ("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh")},
    "leaky_relu": _capture_leaky_relu,
    "hardtanh": _capture_clamp,
    "clamp": _capture_clamp,
    "clamp_min": _capture_clamp,
}
EMITTERS = {"activation": _activation}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "activation": ((0, 0),),
    "activation_backward": ((0, 0), (0, 1)),
}
