"""Fully connected layers."""

from __future__ import annotations

import math

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered


def _capture_linear(call: CapturedNode) -> Layer:
    if len(call.shape("input")) < 2:
        raise NotCovered("without a batch dimension")
    return call.layer("linear", (call.activation("input"),), (call.tensor("weight"), call.tensor("bias")))


def _linear(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    weight, bias = builder.weight(layer.tensors[0]), builder.weight(layer.tensors[1])
    assert weight is not None

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
        if not builder.trains(weight):
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
