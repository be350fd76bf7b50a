"""Operators that only say how bytes are read."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer


def _capture_reshape(argument: str) -> Callable[[CapturedNode], Layer]:
    return lambda call: call.layer("reshape", (call.activation(argument),))


def _reshape(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    y = builder.derived((x,), lambda x: builder.reshaped(x, layer.shape))
    return builder.record(y, lambda gradient: _pairs(builder, x, gradient))


def _pairs(builder: StepBuilder, x: Value, gradient: Value) -> Pairs:
    return [(x, builder.reshaped(gradient, x.shape))]


CAPTURES = {name: _capture_reshape("self") for name in ("flatten", "view", "reshape", "squeeze")}
EMITTERS = {"reshape": _reshape}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
