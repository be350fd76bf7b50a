"""GELU, exact or approximated by the hyperbolic tangent."""

from __future__ import annotations

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer


def _capture_gelu(call: CapturedNode) -> Layer:
    return call.layer("gelu", (call.activation("self"),), tanh=call.arguments["approximate"] == "tanh")


def _gelu(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    tanh = bool(layer.attributes["tanh"])

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("gelu", (x, tanh), (y,))
        return y

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new(f"{layer.module}.input_gradient", layer.shape)
        builder.graph.emit("gelu_backward", (gradient, builder.again(x), tanh), (result,))
        return [(x, result)]

    return builder.record(builder.derived((x,), compute), rule)


CAPTURES = {"gelu": _capture_gelu}
EMITTERS = {"gelu": _gelu}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"gelu": ((0, 0),), "gelu_backward": ((0, 0), (0, 1))}
