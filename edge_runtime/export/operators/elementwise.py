"""Arithmetic of two tensors of one shape, and the optimizer's updates."""

from __future__ import annotations

import torch

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered


def _capture_add(call: CapturedNode) -> Layer:
    if not isinstance(call.arguments["other"], torch.fx.Node) or call.arguments.get("alpha", 1) != 1:
        raise NotCovered("a number added, or a factor alpha")
    if call.shape("self") != call.shape("other"):
        raise NotCovered("shapes that differ")
    return call.layer("add", (call.activation("self"), call.activation("other")), relu=False)


def _add(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    relu = bool(layer.attributes["relu"])

    def compute(a: Value, b: Value) -> Value:
        y = builder.new("sum", layer.shape)
        builder.graph.emit("add", (a, b, relu), (y,))
        return y

    a, b = values[layer.inputs[0]], values[layer.inputs[1]]
    y = builder.derived((a, b), compute)

    def rule(gradient: Value) -> Pairs:
        if relu:
            masked = builder.new("sum.gradient", layer.shape)
            builder.graph.emit("relu_backward", (gradient, builder.again(y)), (masked,))
            gradient = masked
        return [(a, gradient), (b, gradient)]

    return builder.record(y, rule)


CAPTURES = {"add": _capture_add}
EMITTERS = {"add": _add}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"add": ((0, 0), (0, 1))}
