"""Dropout. The elements it drops follow from the seed, the step and the layer: no mask is stored."""

from __future__ import annotations

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import elementwise
from edge_runtime.export.operators.view import repeated


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


def _capture_draws(call: CapturedNode) -> Layer:
    """`bernoulli` of one probability, as stochastic depth draws it: dropout of ones, without its factor.

    In inference every element is the probability, by which such layers divide.
    """
    p = call.arguments.get("p")
    if not isinstance(p, float) or not 0.0 < p <= 1.0:
        raise NotCovered("with another probability for every element, or 0")
    return drawn(call, p)


def drawn(call: CapturedNode, p: float) -> Layer:
    """Ones with the probability `p` among zeros; all `p` in inference."""
    shape = call.output_shape
    one = call.kept("one", torch.ones((1,) * max(1, len(shape))))
    ones, _ = repeated(call, one, (1,) * max(1, len(shape)), lambda t: t.expand(shape))
    return call.layer("affine", (call.step("dropout", (ones,), shape, dropout=1.0 - p),), factor=p, offset=0.0)


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


CAPTURES = {
    "dropout": _capture_dropout,
    "feature_dropout": _capture_channel_dropout,
    "bernoulli": _capture_draws,
}
EMITTERS = {"dropout": _dropout}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"dropout": ((0, 0),)}
