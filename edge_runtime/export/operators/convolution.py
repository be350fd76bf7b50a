"""Convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered, pair
from edge_runtime.export.operators.activation import ACTIVATIONS, fused_activation
from edge_runtime.export.operators.linear import is_computed, weight_of, with_weight

_MOST_TAPS = 256
"""Of the kernels' fixed tables: up to 16x16."""


def _capture_convolution(call: CapturedNode) -> Layer:
    """`conv2d`, and `conv1d` as one of images of height 1."""
    of_sequences = call.operator == "conv1d"
    if len(call.shape("input")) != (3 if of_sequences else 4):
        raise NotCovered("without a batch dimension")
    stride, dilation = (_directions(call.arguments[name], of_sequences, missing=1) for name in ("stride", "dilation"))
    kernel = _directions(call.shape("weight")[2:], of_sequences, missing=1)
    padding = call.arguments["padding"]
    if padding == "valid":
        before = (0, 0)
    elif padding == "same":
        # What is missing on the far side, one more where the sum is odd, follows from the output's size.
        before = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    else:
        before = _directions(padding, of_sequences, missing=0)
    how = {"stride": stride, "padding": before, "dilation": dilation, "groups": int(call.arguments["groups"])}
    if math.prod(kernel) > _MOST_TAPS:
        return _in_parts(call, how, kernel)
    inputs, weight = with_weight(call)
    if not call.is_computed("bias"):
        return call.layer("conv2d", inputs, (weight, call.tensor("bias")), **how)
    return _with_bias(call, call.step("conv2d", inputs, call.output_shape, (weight, None), **how))


def _in_parts(call: CapturedNode, how: dict[str, Any], kernel: tuple[int, int]) -> Layer:
    """A convolution by a large kernel: the sum of those by its parts, each of what it sees of the input."""
    shape, columns = call.output_shape, min(kernel[1], _MOST_TAPS)
    steps = (_MOST_TAPS // columns, columns)
    total = ""
    for first in itertools.product(*(range(0, size, step) for size, step in zip(kernel, steps, strict=True))):
        part = tuple(min(step, size - at) for at, size, step in zip(first, kernel, steps, strict=True))
        begins, sizes = [], []
        for d, extent in enumerate((1, *shape[2:])[-2:]):
            begins.append(first[d] * how["dilation"][d] - how["padding"][d])
            sizes.append((extent - 1) * how["stride"][d] + (part[d] - 1) * how["dilation"][d] + 1)
        image = (1, *call.shape("input")[2:])[-2:]
        if any(at >= extent or at + size <= 0 for at, size, extent in zip(begins, sizes, image, strict=True)):
            continue  # it sees nothing but padding
        inputs = (_cropped(call, "input", begins, sizes), _cropped(call, "weight", first, part))
        y = call.step("conv2d", inputs, shape, (None, None), **{**how, "padding": (0, 0)})
        total = call.step("add", (total, y), shape, activation="none") if total else y
    return call.layer("reshape", (total,)) if call.arguments["bias"] is None else _with_bias(call, total)


def _cropped(call: CapturedNode, name: str, first: Sequence[int], sizes: Sequence[int]) -> str:
    """Step to a part of an argument's image, with zeros where it reaches beyond."""
    shape = call.shape(name)
    directions = len(shape) - 2
    part = (*shape[:2], *sizes[-directions:])
    return call.step(
        "crop", (call.activation(name),), part, offsets=(0, 0, *first[-directions:]), cropped=part, value=0.0
    )


def _with_bias(call: CapturedNode, y: str) -> Layer:
    shape = call.output_shape
    by_channel = call.step("reshape", (call.activation("bias"),), (shape[1], *(1,) * (len(shape) - 2)))
    return call.layer("arithmetic", (y, by_channel), operation=0, of_model=(False, False))


def _capture_transposed(call: CapturedNode) -> Layer:
    """`conv_transpose2d` and `conv_transpose1d`: the gradient of the input of the convolution that maps its output to
    its input."""
    of_sequences = call.operator == "conv_transpose1d"
    if len(call.shape("input")) != (3 if of_sequences else 4):
        raise NotCovered("without a batch dimension")
    stride, dilation = (_directions(call.arguments[name], of_sequences, missing=1) for name in ("stride", "dilation"))
    padding, more = (
        _directions(call.arguments[name], of_sequences, missing=0) for name in ("padding", "output_padding")
    )
    if math.prod(_directions(call.shape("weight")[2:], of_sequences, missing=1)) > _MOST_TAPS:
        raise NotCovered(f"with a kernel of more than {_MOST_TAPS} elements")
    if any(extra >= step for extra, step in zip(more, stride, strict=True)):
        raise NotCovered("with an output_padding that reaches the stride")
    inputs, weight = with_weight(call)
    tensors = (weight,)
    attributes = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": int(call.arguments["groups"]),
    }
    if call.arguments["bias"] is None:
        return call.layer("conv_transpose2d", inputs, tensors, **attributes)
    return _with_bias(call, call.step("conv_transpose2d", inputs, call.output_shape, tensors, **attributes))


def _directions(sizes: Any, of_sequences: bool, *, missing: int) -> tuple[int, int]:
    return (missing, pair(sizes)[1]) if of_sequences else pair(sizes)


def geometry(layer: Layer) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups, as the kernels take them."""
    return tuple(layer.attributes[key] for key in ("stride", "padding", "dilation", "groups"))


def _conv2d(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    weight, bias = weight_of(builder, layer, values), builder.weight(layer.tensors[1])
    computed = is_computed(builder, layer, weight)
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
        if bias is not None and builder.trains(bias):
            bias_gradient = builder.gradient_of(bias)
            builder.graph.emit("channel_sum", (gradient,), (bias_gradient,))
            builder.update(bias, bias_gradient)
        if computed:
            to_weight = builder.new(f"{layer.module}.weight_gradient", weight.shape)
            builder.graph.emit("conv2d_weight_grad", (gradient, builder.again(x), *shaped), (to_weight,))
            return [(weight, to_weight), *input_gradient(gradient)]
        if layer.tensors[0] is None or not builder.trains(weight):
            return input_gradient(gradient)
        if builder.fuses_update(weight) and (x not in builder.differentiable or weight.bytes > x.bytes):
            # The weight's gradient never exists, but the input, computed again, lives beside its own gradient.
            pairs = input_gradient(gradient)
            builder.fused_update("conv2d_weight_grad", (gradient, builder.again(x), *shaped), weight)
            return pairs
        # The weight's gradient first: its input, computed again, is gone before the input's gradient needs room.
        weight_gradient = builder.gradient_of(weight)
        builder.graph.emit("conv2d_weight_grad", (gradient, builder.again(x), *shaped), (weight_gradient,))
        pairs = input_gradient(gradient)
        builder.update(weight, weight_gradient)
        return pairs

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


def _conv_transpose2d(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    weight = weight_of(builder, layer, values)
    computed = is_computed(builder, layer, weight)
    shaped = geometry(layer)

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("conv2d_input_grad", (x, weight, None, *shaped), (y,))
        return y

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        pairs: Pairs = []
        if x in builder.differentiable:
            x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
            builder.graph.emit("conv2d", (gradient, weight, None, *shaped), (x_gradient,))
            pairs.append((x, x_gradient))
        if not computed and (layer.tensors[0] is None or not builder.trains(weight)):
            return pairs
        # What the convolution is given and what it puts out have changed places.
        sources = (builder.again(x), gradient, *shaped)
        if computed:
            to_weight = builder.new(f"{layer.module}.weight_gradient", weight.shape)
            builder.graph.emit("conv2d_weight_grad", sources, (to_weight,))
            pairs.append((weight, to_weight))
        elif builder.fuses_update(weight):
            builder.fused_update("conv2d_weight_grad", sources, weight)
        else:
            weight_gradient = builder.gradient_of(weight)
            builder.graph.emit("conv2d_weight_grad", sources, (weight_gradient,))
            builder.update(weight, weight_gradient)
        return pairs

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


def frozen_conv2d(builder: StepBuilder, layer: Layer, behind: Layer | None, values: Values) -> Value:
    """A frozen convolution that applies to what it stores what is `behind` it: BatchNorm with residual and activation,
    or an activation alone."""
    weight, bias = weight_of(builder, layer, values), builder.weight(layer.tensors[1])
    norm = behind if behind is not None and behind.kind == "batch_norm" else None
    statistics = (None, None, None, None) if norm is None else tuple(builder.weight(name) for name in norm.tensors)
    eps = 0.0 if norm is None else float(norm.attributes["eps"])
    residual = values[norm.inputs[1]] if norm is not None and len(norm.inputs) > 1 else None
    activation = ACTIVATIONS["none"] if behind is None else fused_activation(behind)
    y = builder.new(layer.module, layer.shape)
    x = values[layer.inputs[0]]
    builder.graph.emit(
        "conv2d_frozen", (x, weight, bias, *statistics, eps, residual, activation, *geometry(layer)), (y,)
    )
    return y


CAPTURES = {
    **dict.fromkeys(("conv1d", "conv2d"), _capture_convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _capture_transposed),
}
EMITTERS = {"conv2d": _conv2d, "conv_transpose2d": _conv_transpose2d}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"conv2d_input_grad": ((0, 2),), "conv2d_frozen": ((0, 8),)}
