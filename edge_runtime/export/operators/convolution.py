"""Convolutions."""

from __future__ import annotations

from typing import Any

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered, pair
from edge_runtime.export.optimizers import emit_fused_update


def _capture_conv2d(call: CapturedNode) -> Layer:
    if isinstance(call.arguments["padding"], str):
        raise NotCovered("padding given as a word")
    return call.layer(
        "conv2d",
        (call.activation("input"),),
        (call.tensor("weight"), call.tensor("bias")),
        stride=pair(call.arguments["stride"]),
        padding=pair(call.arguments["padding"]),
        dilation=pair(call.arguments["dilation"]),
        groups=int(call.arguments["groups"]),
    )


def geometry(layer: Layer) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups, as the kernels take them."""
    return tuple(layer.attributes[key] for key in ("stride", "padding", "dilation", "groups"))


def _conv2d(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    weight, bias = builder.weight(layer.tensors[0]), builder.weight(layer.tensors[1])
    assert weight is not None
    shaped = geometry(layer)

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("conv2d", (x, weight, bias, *shaped), (y,))
        return y

    x = values[layer.inputs[0]]

    def input_gradient(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit("conv2d_input_grad", (gradient, weight, None, *shaped), (x_gradient,))
        return [(x, x_gradient)]

    def rule(gradient: Value) -> Pairs:
        if bias is not None:
            bias_gradient = builder.gradient_of(bias)
            builder.graph.emit("channel_sum", (gradient,), (bias_gradient,))
            builder.update(bias, bias_gradient)
        if builder.fuses_update(weight) and (x not in builder.differentiable or weight.bytes > x.bytes):
            # The weight's gradient never exists, but the input, computed again, lives beside its own gradient.
            pairs = input_gradient(gradient)
            emit_fused_update(builder, "conv2d_weight_grad", (gradient, builder.again(x), *shaped), weight)
            return pairs
        # The weight's gradient first: its input, computed again, is gone before the input's gradient needs room.
        weight_gradient = builder.gradient_of(weight)
        builder.graph.emit("conv2d_weight_grad", (gradient, builder.again(x), *shaped), (weight_gradient,))
        pairs = input_gradient(gradient)
        builder.update(weight, weight_gradient)
        return pairs

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


def frozen_conv2d(builder: StepBuilder, layer: Layer, norm: Layer | None, values: Values) -> Value:
    """A frozen convolution that applies the BatchNorm behind it, with its residual and ReLU, to what it stores."""
    weight, bias = builder.weight(layer.tensors[0]), builder.weight(layer.tensors[1])
    statistics = (None, None, None, None) if norm is None else tuple(builder.weight(name) for name in norm.tensors)
    eps = 0.0 if norm is None else float(norm.attributes["eps"])
    residual = values[norm.inputs[1]] if norm is not None and len(norm.inputs) > 1 else None
    relu = norm is not None and bool(norm.attributes["relu"])
    y = builder.new(layer.module, layer.shape)
    x = values[layer.inputs[0]]
    builder.graph.emit("conv2d_frozen", (x, weight, bias, *statistics, eps, residual, relu, *geometry(layer)), (y,))
    return y


CAPTURES = {"conv2d": _capture_conv2d}
EMITTERS = {"conv2d": _conv2d}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"conv2d_input_grad": ((0, 2),), "conv2d_frozen": ((0, 8),)}
