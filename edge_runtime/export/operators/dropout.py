"""Dropout. The elements it drops follow from the seed, the step and the layer: no mask is stored."""

from __future__ import annotations

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import elementwise


def _capture_dropout(call: CapturedNode) -> Layer:
    return call.layer("dropout", (call.activation("input"),), dropout=float(call.arguments["p"]))


def _capture_channel_dropout(call: CapturedNode) -> Layer:
    """Dropout of ones, one for each channel of each example, by which the channel is multiplied."""
    shape = call.shape("input")
    if len(shape) < 3:
        raise NotCovered("without channels of several elements")
    kept = (*shape[:2], *(1,) * (len(shape) - 2))
    sums = call.step("reduce", (call.activation("input"),), kept, kept=kept, factor=1.0, over_first=False)
    ones = call.step("affine", (call.step("detached", (sums,), kept),), kept, factor=0.0, offset=1.0)
    mask = call.step("dropout", (ones,), kept, dropout=float(call.arguments["p"]))
    return elementwise.arithmetic(call, elementwise.MULTIPLY, call.activation("input"), mask)


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


CAPTURES = {"dropout": _capture_dropout, "feature_dropout": _capture_channel_dropout}
EMITTERS = {"dropout": _dropout}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"dropout": ((0, 0),)}
