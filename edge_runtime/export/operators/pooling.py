"""Pooling of images and sequences; a sequence [N, C, L] is an image of height 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered, pair

_ADAPTIVE: dict[str, Any] = {"kernel": (0, 0), "stride": (1, 1), "padding": (0, 0)}
"""A kernel of size 0: windows follow from the sizes of input and output."""


def _directions(call: CapturedNode, name: str, *, missing: int) -> tuple[int, int]:
    """A size for both directions; `missing` is the height's where the operator is of sequences."""
    sizes = call.arguments[name]
    if len(call.shape("self")) == 3:
        return (missing, pair(sizes)[1])
    return pair(sizes)


def _window(call: CapturedNode) -> dict[str, Any]:
    if len(call.shape("self")) not in (3, 4) or call.operator.endswith("3d"):
        raise NotCovered("of other than images and sequences with a batch dimension")
    kernel = _directions(call, "kernel_size", missing=1)
    stride = _directions(call, "stride", missing=1) if call.arguments["stride"] else kernel
    return {"kernel": kernel, "stride": stride, "padding": _directions(call, "padding", missing=0)}


def _capture_max_pool(call: CapturedNode) -> Layer:
    dilation = _directions(call, "dilation", missing=1)
    ceil_mode = bool(call.arguments["ceil_mode"])
    return call.layer("max_pool2d", (call.activation("self"),), **_window(call), dilation=dilation, ceil_mode=ceil_mode)


def _capture_average_pool(call: CapturedNode) -> Layer:
    return call.layer(
        "average_pool2d",
        (call.activation("self"),),
        **_window(call),
        count_padding=bool(call.arguments["count_include_pad"]),
        divisor=int(call.arguments.get("divisor_override") or 0),
    )


def _capture_adaptive_average_pool(call: CapturedNode) -> Layer:
    if all(extent == 1 for extent in call.output_shape[2:]):
        return call.layer("global_average_pool", (call.activation("self"),))
    return call.layer("average_pool2d", (call.activation("self"),), **_ADAPTIVE, count_padding=False, divisor=0)


def _capture_adaptive_max_pool(call: CapturedNode) -> Layer:
    if call.index not in (None, 0):
        raise NotCovered("with the places of the maxima")
    return call.layer("max_pool2d", (call.activation("self"),), **_ADAPTIVE, dilation=(1, 1), ceil_mode=False)


def _pool(kernel: str, keys: tuple[str, ...], *, reads_input: bool) -> Callable[[StepBuilder, Layer, Values], Value]:
    """The emitter of windows that `kernel` pools and `<kernel>_backward` spreads."""

    def emit(builder: StepBuilder, layer: Layer, values: Values) -> Value:
        window = tuple(layer.attributes[key] for key in keys)

        def compute(x: Value) -> Value:
            y = builder.new(layer.module, layer.shape)
            builder.graph.emit(kernel, (x, *window), (y,))
            return y

        x = values[layer.inputs[0]]

        def rule(gradient: Value) -> Pairs:
            if x not in builder.differentiable:
                return []
            result = builder.new(f"{layer.module}.input_gradient", x.shape)
            sources = (gradient, builder.again(x)) if reads_input else (gradient,)
            builder.graph.emit(f"{kernel}_backward", (*sources, *window), (result,))
            return [(x, result)]

        return builder.record(builder.derived((x,), compute), rule)

    return emit


def _global_average_pool(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("global_average_pool", (x,), (y,))
        return y

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new("pool.input_gradient", x.shape)
        builder.graph.emit("global_average_pool_backward", (gradient,), (result,))
        return [(x, result)]

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


CAPTURES = {
    **dict.fromkeys(("max_pool1d", "max_pool2d"), _capture_max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _capture_average_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _capture_adaptive_average_pool),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d"), _capture_adaptive_max_pool),
}
EMITTERS = {
    "max_pool2d": _pool("max_pool2d", ("kernel", "stride", "padding", "dilation", "ceil_mode"), reads_input=True),
    "average_pool2d": _pool(
        "average_pool2d", ("kernel", "stride", "padding", "count_padding", "divisor"), reads_input=False
    ),
    "global_average_pool": _global_average_pool,
}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
