"""Normalisation. BatchNorm carries the residual addition behind it, and both their activation (see `fusion.py`)."""

from __future__ import annotations

from dataclasses import replace

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import activation, elementwise
from edge_runtime.export.operators.activation import ACTIVATIONS, fused_activation


def _capture_batch_norm(call: CapturedNode) -> Layer:
    if call.arguments["running_mean"] is None and call.is_of_parameters("input"):
        return _capture_standardised(call)
    names = tuple(call.tensor(name) for name in ("weight", "bias", "running_mean", "running_var"))
    if None in names[2:]:
        raise NotCovered("without running statistics, which its frozen form needs; GroupNorm has none and is covered")
    if (names[0] is None) != (names[1] is None):
        raise NotCovered("with only one of weight and bias")
    if not call.arguments["training"]:
        return _capture_fixed(call, names)
    if any(not call.is_state(name) for name in ("running_mean", "running_var")):
        raise NotCovered("with running statistics that are no buffers of the state_dict")
    return call.layer(
        "batch_norm",
        (call.activation("input"),),
        names,
        momentum=float(call.arguments["momentum"]),
        eps=float(call.arguments["eps"]),
        activation="none",
    )


def _capture_standardised(call: CapturedNode) -> Layer:
    """Weights that are standardised channel by channel: the statistics are theirs, in training and in inference."""
    shape = call.output_shape
    if shape[0] != 1:
        raise NotCovered("of parameters with more than one row")
    how = {"groups": shape[1], "eps": float(call.arguments["eps"]), "activation": "none"}
    x = call.activation("input")
    if call.arguments["weight"] is None and call.arguments["bias"] is None:
        return call.layer("group_norm", (x,), (None, None), **how)
    y = call.step("group_norm", (x,), shape, (None, None), **how)
    for name, operation in (("weight", elementwise.MULTIPLY), ("bias", elementwise.ADD)):
        if call.arguments[name] is not None:
            by_channel = call.step("reshape", (call.activation(name),), (shape[1], *(1,) * (len(shape) - 2)))
            y = elementwise.arithmetic_step(call, operation, y, by_channel, shape)
    return call.layer("reshape", (y,))


def _capture_fixed(call: CapturedNode, names: tuple[str | None, ...]) -> Layer:
    """By the running statistics, which stay as they are, also in training; weight and bias may be trained all the same,
    and are then layers of their own."""
    x, shape = call.activation("input"), call.output_shape
    eps, tensors = float(call.arguments["eps"]), names
    how = {"momentum": 0.0, "eps": eps, "activation": "none", "fixed": True}
    if not (call.is_trained("weight") or call.is_trained("bias")):
        return call.layer("batch_norm", (x,), tensors, **how)
    y = call.step("batch_norm", (x,), shape, (None, None, *names[2:]), **how)
    by_channel = (shape[1], *(1,) * (len(shape) - 2))
    weight, bias = (
        call.step("reshape", (call.activation(name),), by_channel) if len(shape) > 2 else call.activation(name)
        for name in ("weight", "bias")
    )
    y = call.step("arithmetic", (y, weight), shape, operation=elementwise.MULTIPLY, of_model=(False, False))
    return call.layer("arithmetic", (y, bias), operation=elementwise.ADD, of_model=(False, False))


def _batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    if builder.training and not layer.attributes.get("fixed"):
        return _trained_batch_norm(builder, layer, values)
    return (_passing_batch_norm if builder.differentiates else _frozen_batch_norm)(builder, layer, values)


def _passing_batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """Frozen, and passing its gradient on: what it carries is emitted as layers of their own.

    Without mean and bias, what it does to its input is what the backward pass does to the gradient.
    """
    x = values[layer.inputs[0]]
    weight, bias, mean, variance = (builder.weight(name) for name in layer.tensors)
    behind = (layer.attributes["eps"], None, ACTIVATIONS["none"])

    def compute(x: Value, bias: Value | None = bias, mean: Value | None = mean) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("batch_norm_frozen", (x, weight, bias, mean, variance, *behind), (y,))
        return y

    y = builder.record(builder.derived((x,), compute), lambda gradient: [(x, compute(gradient, None, None))])
    if len(layer.inputs) > 1:
        added = replace(layer, inputs=("normalised", "residual"), attributes={"activation": "none"})
        y = elementwise.EMITTERS["add"](builder, added, {"normalised": y, "residual": values[layer.inputs[1]]})
    if fused_activation(layer) != ACTIVATIONS["none"]:
        how = {"activation": layer.attributes["activation"], "parameter": 0.0}
        y = activation.EMITTERS["activation"](builder, replace(layer, inputs=("sum",), attributes=how), {"sum": y})
    return y


def _frozen_batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    residual = values[layer.inputs[1]] if len(layer.inputs) > 1 else None
    tensors = tuple(builder.weight(name) for name in layer.tensors)
    arguments = (values[layer.inputs[0]], *tensors, layer.attributes["eps"], residual, fused_activation(layer))
    y = builder.new(layer.module, layer.shape)
    builder.graph.emit("batch_norm_frozen", arguments, (y,))
    return y


def _trained_batch_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    residual = values[layer.inputs[1]] if len(layer.inputs) > 1 else None
    weight, bias = (builder.weight(name) for name in layer.tensors[:2])
    mean, variance = (builder.statistic(name) for name in layer.tensors[2:])
    assert mean is not None and variance is not None
    momentum, eps, fused = layer.attributes["momentum"], layer.attributes["eps"], fused_activation(layer)
    batch_mean = builder.new(f"{layer.module}.batch_mean", mean.shape, "activation")
    batch_rstd = builder.new(f"{layer.module}.batch_rstd", mean.shape, "activation")
    inputs = (x,) if residual is None else (x, residual)
    first = True

    def compute(x: Value, residual: Value | None = None) -> Value:
        nonlocal first
        y = builder.new(layer.module, layer.shape)
        if first:
            builder.graph.emit(
                "batch_norm_train",
                (x, weight, bias, mean, variance, momentum, eps, residual, fused),
                (y, batch_mean, batch_rstd, mean.updated(), variance.updated()),
            )
        else:
            builder.graph.emit("batch_norm_apply", (x, weight, bias, batch_mean, batch_rstd, residual, fused), (y,))
        first = False
        return y

    def rule(gradient: Value) -> Pairs:
        weight_gradient, bias_gradient = (builder.gradient_if_trained(p) for p in (weight, bias))
        x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
        # Without activation the residual's gradient is the incoming one, and the residual itself is not needed.
        masked = residual if fused != ACTIVATIONS["none"] else None
        residual_gradient = None if masked is None else builder.new(f"{layer.module}.residual_gradient", x.shape)
        masked_again = None if masked is None else builder.again(masked)
        builder.graph.emit(
            "batch_norm_backward",
            (gradient, builder.again(x), weight, bias, batch_mean, batch_rstd, masked_again, fused),
            (x_gradient, residual_gradient, weight_gradient, bias_gradient),
        )
        _update(builder, (weight, weight_gradient), (bias, bias_gradient))
        pairs: Pairs = [(x, x_gradient)]
        if residual is not None:
            pairs.append((residual, gradient if residual_gradient is None else residual_gradient))
        return pairs

    return builder.record(builder.derived(inputs, compute), rule)


def _update(builder: StepBuilder, *pairs: tuple[Value | None, Value | None]) -> None:
    """Update the parameters that are there."""
    for parameter, gradient in pairs:
        if parameter is not None and gradient is not None:
            builder.update(parameter, gradient)


def _capture_group_norm(call: CapturedNode) -> Layer:
    return call.layer(
        "group_norm",
        (call.activation("input"),),
        (call.tensor("weight"), call.tensor("bias")),
        groups=int(call.arguments["num_groups"]),
        eps=float(call.arguments["eps"]),
        activation="none",
    )


def _capture_instance_norm(call: CapturedNode) -> Layer:
    """GroupNorm with a group for each channel."""
    if not call.arguments["use_input_stats"] or call.tensor("running_mean") is not None:
        raise NotCovered("with running statistics; BatchNorm and GroupNorm are covered")
    return call.layer(
        "group_norm",
        (call.activation("input"),),
        (call.tensor("weight"), call.tensor("bias")),
        groups=call.shape("input")[1],
        eps=float(call.arguments["eps"]),
        activation="none",
    )


def _group_norm(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    weight, bias = (builder.weight(name) for name in layer.tensors)
    how = (layer.attributes["groups"], layer.attributes["eps"], fused_activation(layer))

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("group_norm", (x, weight, bias, *how), (y,))
        return y

    def rule(gradient: Value) -> Pairs:
        weight_gradient, bias_gradient = (builder.gradient_if_trained(p) for p in (weight, bias))
        x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit(
            "group_norm_backward",
            (gradient, builder.again(x), weight, bias, *how),
            (x_gradient, weight_gradient, bias_gradient),
        )
        _update(builder, (weight, weight_gradient), (bias, bias_gradient))
        return [(x, x_gradient)]

    return builder.record(builder.derived((x,), compute), rule)


CAPTURES = {
    "batch_norm": _capture_batch_norm,
    "group_norm": _capture_group_norm,
    "instance_norm": _capture_instance_norm,
}
EMITTERS = {"batch_norm": _batch_norm, "group_norm": _group_norm}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "batch_norm_train": ((0, 7),),
    "batch_norm_apply": ((0, 5), (0, 0)),
    "batch_norm_backward": ((1, 0), (1, 6), (0, 1), (0, 0)),
    "batch_norm_frozen": ((0, 6), (0, 0)),
    "group_norm": ((0, 0),),
    "group_norm_backward": ((0, 0), (0, 1)),
}
