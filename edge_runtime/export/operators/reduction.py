"""Means and sums over dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import summed


def _capture(*, mean: bool) -> Callable[[CapturedNode], Layer]:
    def capture(call: CapturedNode) -> Layer:
        shape = call.shape("self")
        dims = sorted(d % len(shape) for d in call.arguments.get("dim") or range(len(shape)))
        if call.over_examples("self", dims):
            raise NotCovered("over the batch")
        if mean and len(shape) > 2 and dims == list(range(2, len(shape))):
            return call.layer("global_average_pool", (call.activation("self"),))
        kept = tuple(1 if d in dims else extent for d, extent in enumerate(shape))
        factor = math.prod(kept) / math.prod(shape) if mean else 1.0
        return call.layer("reduce", (call.activation("self"),), kept=kept, factor=factor, over_first=0 in dims)

    return capture


def _reduce(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    kept, factor = tuple(layer.attributes["kept"]), float(layer.attributes["factor"])

    def sums(x: Value) -> tuple[int, ...]:
        # Some examples of the batch may be run alone; the first dimension need not be theirs.
        return kept if layer.attributes["over_first"] else (x.shape[0], *kept[1:])

    def compute(x: Value) -> Value:
        return builder.reshaped(summed(builder, x, None, factor, sums(x)), layer.shape)

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        result = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit("broadcast", (builder.reshaped(gradient, sums(x)), factor), (result,))
        return [(x, result)]

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


CAPTURES = {"mean": _capture(mean=True), "sum": _capture(mean=False)}
EMITTERS = {"reduce": _reduce}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
