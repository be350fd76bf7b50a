"""Normalisation. BatchNorm carries the residual addition and the ReLU behind it (see `fusion.py`)."""

from __future__ import annotations

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.optimizers import updated


def _capture_batch_norm(call: CapturedNode) -> Layer:
    names = tuple(call.tensor(name) for name in ("weight", "bias", "running_mean", "running_var"))
    if None in names:
        raise NotCovered("without weight, bias or running statistics")
    return call.layer(
        "batch_norm",
        (call.activation("input"),),
        names,
        momentum=float(call.arguments["momentum"]),
        eps=float(call.arguments["eps"]),
        relu=False,
    )


def _batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    return (_trained_batch_norm if builder.training else _frozen_batch_norm)(builder, layer, values)


def _frozen_batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    residual = values[layer.inputs[1]] if len(layer.inputs) > 1 else None
    tensors = tuple(builder.weight(name) for name in layer.tensors)
    arguments = (values[layer.inputs[0]], *tensors, layer.attributes["eps"], residual, layer.attributes["relu"])
    y = builder.new(layer.module, layer.shape)
    builder.graph.emit("batch_norm_frozen", arguments, (y,))
    return y


def _trained_batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    residual = values[layer.inputs[1]] if len(layer.inputs) > 1 else None
    weight, bias = (builder.weight(name) for name in layer.tensors[:2])
    mean, variance = (builder.statistic(name) for name in layer.tensors[2:])
    assert weight is not None and bias is not None and mean is not None and variance is not None
    momentum, eps, relu = (layer.attributes[key] for key in ("momentum", "eps", "relu"))
    batch_mean = builder.new(f"{layer.module}.batch_mean", weight.shape, "activation")
    batch_rstd = builder.new(f"{layer.module}.batch_rstd", weight.shape, "activation")
    inputs = (x,) if residual is None else (x, residual)
    first = True

    def compute(x: Value, residual: Value | None = None) -> Value:
        nonlocal first
        y = builder.new(layer.module, layer.shape)
        if first:
            builder.graph.emit(
                "batch_norm_train",
                (x, weight, bias, mean, variance, momentum, eps, residual, relu),
                (y, batch_mean, batch_rstd, updated(mean), updated(variance)),
            )
        else:
            builder.graph.emit("batch_norm_apply", (x, weight, bias, batch_mean, batch_rstd, residual, relu), (y,))
        first = False
        return y

    def rule(gradient: Value) -> Pairs:
        weight_gradient, bias_gradient = builder.gradient_of(weight), builder.gradient_of(bias)
        x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
        # Without ReLU the residual's gradient is the incoming one, and the residual itself is not needed.
        masked = residual if relu else None
        residual_gradient = None if masked is None else builder.new(f"{layer.module}.residual_gradient", x.shape)
        masked_again = None if masked is None else builder.again(masked)
        builder.graph.emit(
            "batch_norm_backward",
            (gradient, builder.again(x), weight, bias, batch_mean, batch_rstd, masked_again, relu),
            (x_gradient, residual_gradient, weight_gradient, bias_gradient),
        )
        builder.update(weight, weight_gradient)
        builder.update(bias, bias_gradient)
        pairs: Pairs = [(x, x_gradient)]
        if residual is not None:
            pairs.append((residual, gradient if residual_gradient is None else residual_gradient))
        return pairs

    return builder.record(builder.derived(inputs, compute), rule)


CAPTURES = {"batch_norm": _capture_batch_norm}
EMITTERS = {"batch_norm": _batch_norm}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "batch_norm_train": ((0, 7),),
    "batch_norm_apply": ((0, 5), (0, 0)),
    "batch_norm_backward": ((1, 0), (1, 6), (0, 1), (0, 0)),
    "batch_norm_frozen": ((0, 6), (0, 0)),
}
