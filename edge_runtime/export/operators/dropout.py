"""Dropout. The elements it drops follow from the seed, the step and the layer: no mask is stored."""

from __future__ import annotations

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer


def _capture_dropout(call: CapturedNode) -> Layer:
    return call.layer("dropout", (call.activation("input"),), dropout=float(call.arguments["p"]))


def _dropout(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    if not builder.training:
        return x

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        arguments = (x, builder.random(), layer.attributes["dropout_layer"], layer.attributes["dropout"])
        builder.graph.emit("dropout", arguments, (y,))
        return y

    def rule(gradient: Value) -> Pairs:
        return [(x, compute(gradient))] if x in builder.differentiable else []

    return builder.record(builder.derived((x,), compute), rule)


CAPTURES = {"dropout": _capture_dropout}
EMITTERS = {"dropout": _dropout}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"dropout": ((0, 0),)}
