"""Activations, element by element, and the names by which other kernels take them over."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered

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
    "mish": 9,
    "softplus": 10,
    "elu": 11,
    "absolute": 12,
    "exponential": 13,
    "logarithm": 14,
    "square_root": 15,
    "inverse_root": 16,
    "reciprocal": 17,
    "at_least": 18,
    "at_most": 19,
}
"""Number of each activation in a program; `csrc/kernels/activation/activation.h` has the same."""

FUSED = frozenset({"relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "mish"})
"""Those without a parameter that normalisations and frozen convolutions apply to what they store."""


SUBTRACT, MULTIPLY = 1, 2
"""Numbers of `csrc/kernels/elementwise/arithmetic.cpp`, as in `elementwise.py`, which imports this module."""
_SELU = (1.6732632423543772, 1.0507009873554805)
"""PyTorch's constants alpha and scale."""


def _capture(name: str) -> Callable[[CapturedNode], Layer]:
    return lambda call: _layer(call, name)


def _layer(call: CapturedNode, name: str, parameter: float = 0.0) -> Layer:
    return call.layer("activation", (call.activation("self"),), activation=name, parameter=parameter)


def _capture_leaky_relu(call: CapturedNode) -> Layer:
    return _layer(call, "leaky_relu", float(call.arguments["negative_slope"]))


def _capture_rrelu(call: CapturedNode) -> Layer:
    """In inference mode the slope is the mean of its limits; in training mode it is drawn, which is refused."""
    return _layer(call, "leaky_relu", (float(call.arguments["lower"]) + float(call.arguments["upper"])) / 2)


def _capture_elu(call: CapturedNode) -> Layer:
    """ELU, and SELU, which is a multiple of it."""
    alpha, scale = _SELU if call.operator == "selu" else (call.arguments["alpha"], call.arguments["scale"])
    if call.arguments.get("input_scale", 1) != 1:
        raise NotCovered("with a scale of its input")
    if scale == 1:
        return _layer(call, "elu", float(alpha))
    shape = call.output_shape
    y = call.step("activation", (call.activation("self"),), shape, activation="elu", parameter=float(alpha))
    return call.layer("affine", (y,), factor=float(scale), offset=0.0)


def _capture_celu(call: CapturedNode) -> Layer:
    """alpha * ELU(x / alpha)."""
    alpha, shape = float(call.arguments["alpha"]), call.output_shape
    x = call.step("affine", (call.activation("self"),), shape, factor=1.0 / alpha, offset=0.0)
    y = call.step("activation", (x,), shape, activation="elu", parameter=1.0)
    return call.layer("affine", (y,), factor=alpha, offset=0.0)


def _capture_log_sigmoid(call: CapturedNode) -> Layer:
    """-softplus(-x)."""
    shape = call.output_shape
    x = call.step("affine", (call.activation("self"),), shape, factor=-1.0, offset=0.0)
    y = call.step("activation", (x,), shape, activation="softplus", parameter=1.0)
    return call.layer("affine", (y,), factor=-1.0, offset=0.0)


def _capture_prelu(call: CapturedNode) -> Layer:
    """relu(x) - weight * relu(-x), with a weight for each channel or one for all."""
    x, weight, shape = call.activation("self"), call.activation("weight"), call.output_shape
    (slopes,) = call.shape("weight")
    by_channel = (slopes, *(1,) * (len(shape) - 2))
    if by_channel != (slopes,):
        weight = call.step("reshape", (weight,), by_channel)
    negative = call.step("affine", (x,), shape, factor=-1.0, offset=0.0)
    below = call.step("activation", (negative,), shape, activation="relu", parameter=0.0)
    above = call.step("activation", (x,), shape, activation="relu", parameter=0.0)
    weighted = call.step("arithmetic", (below, weight), shape, operation=MULTIPLY, of_model=(False, False))
    return call.layer("arithmetic", (above, weighted), operation=SUBTRACT, of_model=(False, False))


def _capture_glu(call: CapturedNode) -> Layer:
    """One half of a dimension by the sigmoid of the other."""
    x, whole, shape = call.activation("self"), call.shape("self"), call.output_shape
    dim = call.arguments["dim"] % len(shape)
    if call.over_examples("self", (dim,)):
        raise NotCovered("over the batch dimension")
    value, gate = (
        call.step(
            "crop",
            (x,),
            shape,
            offsets=tuple(start if d == dim else 0 for d in range(len(whole))),
            cropped=shape,
            value=0.0,
        )
        for start in (0, shape[dim])
    )
    opened = call.step("activation", (gate,), shape, activation="sigmoid", parameter=0.0)
    return call.layer("arithmetic", (value, opened), operation=MULTIPLY, of_model=(False, False))


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
    **{
        name: _capture(name)
        for name in ("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "mish")
    },
    "elu": _capture_elu,
    "selu": _capture_elu,
    "log_sigmoid": _capture_log_sigmoid,
    "prelu": _capture_prelu,
    "glu": _capture_glu,
    "leaky_relu": _capture_leaky_relu,
    "celu": _capture_celu,
    "rrelu": _capture_rrelu,
    "abs": _capture("absolute"),
    "exp": _capture("exponential"),
    "log": _capture("logarithm"),
    "sqrt": _capture("square_root"),
    "rsqrt": _capture("inverse_root"),
    "reciprocal": _capture("reciprocal"),
}
EMITTERS = {"activation": _activation}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "activation": ((0, 0),),
    "activation_backward": ((0, 0), (0, 1)),
}
