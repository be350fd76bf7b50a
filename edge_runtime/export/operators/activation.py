"""Activations, element by element."""

from __future__ import annotations

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer


def _capture_relu(call: CapturedNode) -> Layer:
    return call.layer("relu", (call.activation("self"),))


def _relu(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("relu", (x,), (y,))
        return y

    x = values[layer.inputs[0]]
    y = builder.derived((x,), compute)

    def rule(gradient: Value) -> Pairs:
        result = builder.new(f"{layer.module}.input_gradient", layer.shape)
        builder.graph.emit("relu_backward", (gradient, builder.again(y)), (result,))
        return [(x, result)]

    return builder.record(y, rule)


CAPTURES = {"relu": _capture_relu}
EMITTERS = {"relu": _relu}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"relu": ((0, 0),), "relu_backward": ((0, 0), (0, 1))}
