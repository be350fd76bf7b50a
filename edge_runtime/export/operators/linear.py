"""Fully connected layers."""

from __future__ import annotations

import math

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered


def _capture_linear(call: CapturedNode) -> Layer:
    if len(call.shape("input")) < 2:
        raise NotCovered("without a batch dimension")
    inputs, weight = with_weight(call)
    if not call.is_computed("bias"):
        return call.layer("linear", inputs, (weight, call.tensor("bias")))
    y = call.step("linear", inputs, call.output_shape, (weight, None))
    return call.layer("arithmetic", (y, call.activation("bias")), operation=0, of_model=(False, False))


def of_turned_weight(call: CapturedNode, x: str, weight: str, bias: str | None = None) -> Layer | None:
    """The product of an activation and a parameter of the model that is transposed for it, as a linear layer, with
    `bias` added if that is one as well; None for any other product. The arguments are given by name."""
    turned = call.arguments[weight]
    if not isinstance(turned, torch.fx.Node) or str(turned.target) != "aten.t.default":
        return None
    source = turned.args[0]
    assert isinstance(source, torch.fx.Node)
    if source.name not in call.state or len(source.meta["val"].shape) != 2 or call.is_tensor(x):
        return None
    if bias is not None and not (call.is_state(bias) and len(call.shape(bias)) == 1):
        return None
    tensors = (call.state[source.name], None if bias is None else call.tensor(bias))
    return call.layer("linear", (call.activation(x),), tensors)


def with_weight(call: CapturedNode) -> tuple[tuple[str, ...], str | None]:
    """Inputs, and the weight's name; a weight that is computed from parameters is a second input and has none."""
    if call.is_computed("weight"):
        return (call.activation("input"), call.activation("weight")), None
    return (call.activation("input"),), call.tensor("weight")


def weight_of(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """The weight of a layer that `with_weight` made."""
    weight = values[layer.inputs[1]] if layer.tensors[0] is None else builder.weight(layer.tensors[0])
    assert weight is not None
    return weight


def is_computed(builder: StepBuilder, layer: Layer, weight: Value) -> bool:
    """Whether the gradient of the weight goes on to what it was computed from."""
    return layer.tensors[0] is None and weight in builder.differentiable


def _linear(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    weight, bias = weight_of(builder, layer, values), builder.weight(layer.tensors[1])
    computed = is_computed(builder, layer, weight)

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("linear", (x, weight, bias), (y,))
        return y

    x = values[layer.inputs[0]]

    def input_gradient(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit("linear_input_grad", (gradient, weight), (x_gradient,))
        return [(x, x_gradient)]

    def rule(gradient: Value) -> Pairs:
        if bias is not None and builder.trains(bias):
            bias_gradient = builder.gradient_of(bias)
            rows = builder.reshaped(gradient, (math.prod(gradient.shape[:-1]), gradient.shape[-1]))
            builder.graph.emit("channel_sum", (rows,), (bias_gradient,))
            builder.update(bias, bias_gradient)
        if computed:
            to_weight = builder.new(f"{layer.module}.weight_gradient", weight.shape)
            builder.graph.emit("linear_weight_grad", (gradient, builder.again(x)), (to_weight,))
            return [(weight, to_weight), *input_gradient(gradient)]
        if layer.tensors[0] is None or not builder.trains(weight):
            return input_gradient(gradient)
        if builder.fuses_update(weight):
            pairs = input_gradient(gradient)
            builder.fused_update("linear_weight_grad", (gradient, builder.again(x)), weight)
            return pairs
        weight_gradient = builder.gradient_of(weight)
        builder.graph.emit("linear_weight_grad", (gradient, builder.again(x)), (weight_gradient,))
        pairs = input_gradient(gradient)
        builder.update(weight, weight_gradient)
        return pairs

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


CAPTURES = {"linear": _capture_linear}
EMITTERS = {"linear": _linear}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
