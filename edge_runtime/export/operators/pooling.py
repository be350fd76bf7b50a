"""Pooling."""

from __future__ import annotations

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered, pair


def _capture_max_pool2d(call: CapturedNode) -> Layer:
    kernel = pair(call.arguments["kernel_size"])
    return call.layer(
        "max_pool2d",
        (call.activation("self"),),
        kernel=kernel,
        stride=pair(call.arguments["stride"]) if call.arguments["stride"] else kernel,
        padding=pair(call.arguments["padding"]),
        dilation=pair(call.arguments["dilation"]),
        ceil_mode=bool(call.arguments["ceil_mode"]),
    )


def _capture_adaptive_avg_pool2d(call: CapturedNode) -> Layer:
    if pair(call.arguments["output_size"]) != (1, 1):
        raise NotCovered("an output larger than 1x1")
    return call.layer("global_average_pool", (call.activation("self"),))


def _capture_mean(call: CapturedNode) -> Layer:
    rank = len(call.shape("self"))
    if rank != 4 or sorted(d % rank for d in call.arguments["dim"] or ()) != [2, 3]:
        raise NotCovered("over other dimensions than height and width")
    return call.layer("global_average_pool", (call.activation("self"),))


def _max_pool2d(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    window = tuple(layer.attributes[key] for key in ("kernel", "stride", "padding", "dilation", "ceil_mode"))

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("max_pool2d", (x, *window), (y,))
        return y

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit("max_pool2d_backward", (gradient, builder.again(x), *window), (result,))
        return [(x, result)]

    return builder.record(builder.derived((x,), compute), rule)


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
    "max_pool2d": _capture_max_pool2d,
    "adaptive_avg_pool2d": _capture_adaptive_avg_pool2d,
    "mean": _capture_mean,
}
EMITTERS = {"max_pool2d": _max_pool2d, "global_average_pool": _global_average_pool}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
