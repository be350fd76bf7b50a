"""Layer by layer: the forward pass, in training and in inference mode, and the rules of the gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edge_runtime.export.capture import Layer
from edge_runtime.export.graph import Value
from edge_runtime.export.train_step import TrainStepBuilder

Values = dict[str, Value]
Pairs = list[tuple[Value, Value]]


def train_layer(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    """Emit a layer in training mode and put its gradient rule on the tape; returns its output."""
    return _TRAIN[layer.kind](builder, layer, values)


def _trained(builder: TrainStepBuilder, name: str | None) -> Value | None:
    return None if name is None else builder.tensor(name, "parameter")


def _record(builder: TrainStepBuilder, output: Value, rule: Callable[[TrainStepBuilder, Value], Pairs]) -> Value:
    builder.tape.append((output, rule))
    builder.differentiable.add(output)
    return output


def _conv2d(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    weight, bias = _trained(builder, layer.tensors[0]), _trained(builder, layer.tensors[1])
    assert weight is not None
    geometry = tuple(layer.attributes[key] for key in ("stride", "padding", "dilation", "groups"))
    y = builder.new(layer.module, layer.shape, "activation")
    builder.graph.emit("conv2d", (x, weight, bias, *geometry), (y,))

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        # The weight's gradient first: its input, computed again, is gone before the input's gradient needs room.
        weight_gradient = builder.gradient_of(weight)
        builder.graph.emit("conv2d_weight_grad", (gradient, builder.again(x), *geometry), (weight_gradient,))
        if bias is not None:
            bias_gradient = builder.gradient_of(bias)
            builder.graph.emit("channel_sum", (gradient,), (bias_gradient,))
            builder.update(bias, bias_gradient)
        pairs: Pairs = []
        if x in builder.differentiable:
            x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
            builder.graph.emit("conv2d_input_grad", (gradient, weight, None, *geometry), (x_gradient,))
            pairs.append((x, x_gradient))
        builder.update(weight, weight_gradient)
        return pairs

    return _record(builder, y, rule)


def _batch_norm(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    residual = values[layer.inputs[1]] if len(layer.inputs) > 1 else None
    weight, bias = (_trained(builder, name) for name in layer.tensors[:2])
    assert weight is not None and bias is not None
    assert layer.tensors[2] is not None and layer.tensors[3] is not None
    mean = builder.tensor(layer.tensors[2], "running_statistic")
    variance = builder.tensor(layer.tensors[3], "running_statistic")
    relu = bool(layer.attributes["relu"])
    y = builder.new(layer.module, layer.shape)
    channels = weight.shape
    batch_mean = builder.new(f"{layer.module}.batch_mean", channels, "activation")
    batch_rstd = builder.new(f"{layer.module}.batch_rstd", channels, "activation")
    new_mean = Value(f"{mean.name}.new", channels, mean.role, storage=mean)
    new_variance = Value(f"{variance.name}.new", channels, variance.role, storage=variance)
    builder.graph.emit(
        "batch_norm_train",
        (x, weight, bias, mean, variance, layer.attributes["momentum"], layer.attributes["eps"], residual, relu),
        (y, batch_mean, batch_rstd, new_mean, new_variance),
    )

    def residual_again() -> Value | None:
        return None if residual is None else builder.again(residual)

    def recipe() -> Value:
        again = builder.new(f"{layer.module}.again", layer.shape)
        builder.graph.emit(
            "batch_norm_apply",
            (builder.again(x), weight, bias, batch_mean, batch_rstd, residual_again(), relu),
            (again,),
        )
        return again

    builder.recipes[y] = recipe

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        weight_gradient, bias_gradient = builder.gradient_of(weight), builder.gradient_of(bias)
        x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
        # Without ReLU the residual's gradient is the incoming one, and the residual itself is not needed.
        masked = residual is not None and relu
        residual_gradient = builder.new(f"{layer.module}.residual_gradient", x.shape) if masked else None
        builder.graph.emit(
            "batch_norm_backward",
            (
                gradient,
                builder.again(x),
                weight,
                bias,
                batch_mean,
                batch_rstd,
                residual_again() if masked else None,
                relu,
            ),
            (x_gradient, residual_gradient, weight_gradient, bias_gradient),
        )
        builder.update(weight, weight_gradient)
        builder.update(bias, bias_gradient)
        pairs: Pairs = [(x, x_gradient)] if x in builder.differentiable else []
        if residual is not None and residual in builder.differentiable:
            pairs.append((residual, gradient if residual_gradient is None else residual_gradient))
        return pairs

    return _record(builder, y, rule)


def _relu(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]

    def compute() -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("relu", (builder.again(x),), (y,))
        return y

    y = builder.new(layer.module, layer.shape)
    builder.graph.emit("relu", (x,), (y,))
    builder.recipes[y] = compute

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        result = builder.new(f"{layer.module}.input_gradient", layer.shape)
        builder.graph.emit("relu_backward", (gradient, builder.again(y)), (result,))
        return [(x, result)] if x in builder.differentiable else []

    return _record(builder, y, rule)


def _add(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    a, b = values[layer.inputs[0]], values[layer.inputs[1]]
    relu = bool(layer.attributes["relu"])
    y = builder.new("sum", layer.shape)
    builder.graph.emit("add", (a, b, relu), (y,))

    def compute() -> Value:
        again = builder.new("sum.again", layer.shape)
        builder.graph.emit("add", (builder.again(a), builder.again(b), relu), (again,))
        return again

    builder.recipes[y] = compute

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        if relu:
            masked = builder.new("sum.gradient", layer.shape)
            builder.graph.emit("relu_backward", (gradient, builder.again(y)), (masked,))
            gradient = masked
        return [(value, gradient) for value in (a, b) if value in builder.differentiable]

    return _record(builder, y, rule)


def _max_pool2d(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    window = tuple(layer.attributes[key] for key in ("kernel", "stride", "padding", "dilation", "ceil_mode"))

    def compute() -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("max_pool2d", (builder.again(x), *window), (y,))
        return y

    y = builder.new(layer.module, layer.shape)
    builder.graph.emit("max_pool2d", (x, *window), (y,))
    builder.recipes[y] = compute

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new(f"{layer.module}.input_gradient", x.shape)
        builder.graph.emit("max_pool2d_backward", (gradient, builder.again(x), *window), (result,))
        return [(x, result)]

    return _record(builder, y, rule)


def _global_average_pool(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    y = builder.new(layer.module, layer.shape, "activation")
    builder.graph.emit("global_average_pool", (x,), (y,))

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new("pool.input_gradient", x.shape)
        builder.graph.emit("global_average_pool_backward", (gradient,), (result,))
        return [(x, result)]

    return _record(builder, y, rule)


def _reshape(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    y = builder.reshaped(x, layer.shape)
    if x in builder.recipes:
        builder.recipes[y] = lambda: builder.reshaped(builder.again(x), layer.shape)

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        return [(x, builder.reshaped(gradient, x.shape))] if x in builder.differentiable else []

    return _record(builder, y, rule)


def _linear(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    x = values[layer.inputs[0]]
    weight, bias = _trained(builder, layer.tensors[0]), _trained(builder, layer.tensors[1])
    assert weight is not None
    y = builder.new(layer.module, layer.shape, "activation")
    builder.graph.emit("linear", (x, weight, bias), (y,))

    def rule(builder: TrainStepBuilder, gradient: Value) -> Pairs:
        weight_gradient = builder.gradient_of(weight)
        builder.graph.emit("linear_weight_grad", (gradient, builder.again(x)), (weight_gradient,))
        if bias is not None:
            bias_gradient = builder.gradient_of(bias)
            builder.graph.emit("channel_sum", (gradient,), (bias_gradient,))
            builder.update(bias, bias_gradient)
        pairs: Pairs = []
        if x in builder.differentiable:
            x_gradient = builder.new(f"{layer.module}.input_gradient", x.shape)
            builder.graph.emit("linear_input_grad", (gradient, weight), (x_gradient,))
            pairs.append((x, x_gradient))
        builder.update(weight, weight_gradient)
        return pairs

    return _record(builder, y, rule)


_TRAIN: dict[str, Callable[[TrainStepBuilder, Layer, Values], Value]] = {
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "add": _add,
    "max_pool2d": _max_pool2d,
    "global_average_pool": _global_average_pool,
    "reshape": _reshape,
    "linear": _linear,
}


def frozen_layers(builder: TrainStepBuilder, layers: list[Layer], values: Values) -> Values:
    """Emit layers in inference mode; a convolution takes the BatchNorm behind it into its epilogue.

    Returns every activation by name, `values` included.
    """
    values = dict(values)
    readers = Counter(name for layer in layers for name in layer.inputs)
    norms = {layer.inputs[0]: layer for layer in layers if layer.kind == "batch_norm"}
    position = {layer.output: i for i, layer in enumerate(layers)}
    waiting: dict[str, Layer] = {}
    for layer in layers:
        norm = norms.get(layer.output)
        if layer.kind == "conv2d" and norm is not None and readers[layer.output] == 1:
            # The convolution runs where its BatchNorm stood, when the residual is there as well.
            assert position[norm.output] > position[layer.output]
            waiting[layer.output] = layer
        elif layer.kind == "batch_norm" and layer.inputs[0] in waiting:
            values[layer.output] = _frozen_conv2d(builder, waiting.pop(layer.inputs[0]), layer, values)
        else:
            values[layer.output] = _frozen_layer(builder, layer, values)
    return values


def _frozen(builder: TrainStepBuilder, name: str | None) -> Value | None:
    return None if name is None else builder.tensor(name, "frozen")


def _frozen_conv2d(builder: TrainStepBuilder, conv: Layer, norm: Layer | None, values: Values) -> Value:
    weight, bias = (_frozen(builder, name) for name in conv.tensors)
    statistics = (None, None, None, None) if norm is None else tuple(_frozen(builder, n) for n in norm.tensors)
    eps = 0.0 if norm is None else float(norm.attributes["eps"])
    residual = values[norm.inputs[1]] if norm is not None and len(norm.inputs) > 1 else None
    relu = norm is not None and bool(norm.attributes["relu"])
    geometry = tuple(conv.attributes[key] for key in ("stride", "padding", "dilation", "groups"))
    y = builder.new(conv.module, conv.shape)
    builder.graph.emit(
        "conv2d_frozen",
        (values[conv.inputs[0]], weight, bias, *statistics, eps, residual, relu, *geometry),
        (y,),
    )
    return y


def _frozen_layer(builder: TrainStepBuilder, layer: Layer, values: Values) -> Value:
    inputs = [values[name] for name in layer.inputs]
    if layer.kind == "conv2d":
        return _frozen_conv2d(builder, layer, None, values)
    if layer.kind == "reshape":
        return builder.reshaped(inputs[0], layer.shape)
    y = builder.new(layer.module, layer.shape)
    if layer.kind == "batch_norm":
        residual = inputs[1] if len(inputs) > 1 else None
        tensors = tuple(_frozen(builder, name) for name in layer.tensors)
        arguments = (inputs[0], *tensors, layer.attributes["eps"], residual, layer.attributes["relu"])
        builder.graph.emit("batch_norm_frozen", arguments, (y,))
    elif layer.kind == "max_pool2d":
        window = tuple(layer.attributes[key] for key in ("kernel", "stride", "padding", "dilation", "ceil_mode"))
        builder.graph.emit("max_pool2d", (inputs[0], *window), (y,))
    elif layer.kind == "add":
        builder.graph.emit("add", (inputs[0], inputs[1], layer.attributes["relu"]), (y,))
    elif layer.kind == "linear":
        weight, bias = (_frozen(builder, name) for name in layer.tensors)
        builder.graph.emit("linear", (inputs[0], weight, bias), (y,))
    else:
        builder.graph.emit(layer.kind, (inputs[0],), (y,))
    return y
