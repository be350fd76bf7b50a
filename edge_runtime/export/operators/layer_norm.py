"""LayerNorm. Its output follows from its input and two numbers a row, which are kept."""

from __future__ import annotations

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value, ValueRole
from edge_runtime.export.ir.layers import CapturedNode, Layer


def _capture_layer_norm(call: CapturedNode) -> Layer:
    return call.layer(
        "layer_norm",
        (call.activation("input"),),
        (call.tensor("weight"), call.tensor("bias")),
        eps=float(call.arguments["eps"]),
        dims=len(call.arguments["normalized_shape"]),
    )


def _layer_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    weight, bias = (builder.weight(name) for name in layer.tensors)
    rows = x.shape[: len(x.shape) - int(layer.attributes["dims"])]
    role: ValueRole = "activation" if builder.differentiates else "temporary"
    mean, rstd = (builder.new(f"{layer.module}.{name}", rows, role) for name in ("mean", "rstd"))
    first = True

    def compute(x: Value) -> Value:
        nonlocal first
        y = builder.new(layer.module, layer.shape)
        if first:
            builder.graph.emit("layer_norm", (x, weight, bias, layer.attributes["eps"]), (y, mean, rstd))
        else:
            builder.graph.emit("layer_norm_apply", (x, weight, bias, mean, rstd), (y,))
        first = False
        return y

    def rule(gradient: Value) -> Pairs:
        to_weight, to_bias = (builder.gradient_if_trained(value) for value in (weight, bias))
        to_x = builder.new(f"{layer.module}.input_gradient", x.shape) if x in builder.differentiable else None
        builder.graph.emit(
            "layer_norm_backward", (gradient, builder.again(x), weight, mean, rstd), (to_x, to_weight, to_bias)
        )
        for parameter, its_gradient in ((weight, to_weight), (bias, to_bias)):
            if parameter is not None and its_gradient is not None:
                builder.update(parameter, its_gradient)
        return [] if to_x is None else [(x, to_x)]

    return builder.record(builder.derived((x,), compute), rule)


CAPTURES = {"layer_norm": _capture_layer_norm}
EMITTERS = {"layer_norm": _layer_norm}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "layer_norm": ((0, 0),),
    "layer_norm_apply": ((0, 0),),
    "layer_norm_backward": ((0, 0), (0, 1)),
}
