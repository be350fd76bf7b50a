"""Build the training step of one block: prefix, block, output module, loss, backward, update.

Differentiation happens here, layer by layer, at export time. What the backward pass needs is kept as little as
possible: outputs of convolutions and linear layers and the batch statistics are saved; everything that follows from
them element by element (BatchNorm, residual addition, ReLU, pooling) is computed again just before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from device_profiles.bundle import Optimizer
from device_profiles.contract import (
    IMAGES_INPUT,
    LABELS_INPUT,
    LEARNING_RATE_INPUT,
    optimizer_state_name,
)
from edge_runtime.export.capture import Layer
from edge_runtime.export.graph import Operation, StepGraph, Value, ValueRole
from edge_runtime.export.units import UnitLayers

Shapes = dict[str, tuple[int, ...]]
Backward = Callable[["TrainStepBuilder", Value], list[tuple[Value, Value]]]
"""Given the gradient of a layer's output, emits operations and returns (layer input, its gradient) pairs."""


@dataclass(slots=True)
class TrainStepBuilder:
    """Accumulates one step; `tensor_shapes` has every state_dict tensor and stand-in."""

    tensor_shapes: Shapes
    optimizer: Optimizer
    graph: StepGraph = field(default_factory=StepGraph)
    tape: list[tuple[Value, Backward]] = field(default_factory=list)
    tensors: dict[str, Value] = field(default_factory=dict)
    recipes: dict[Value, Callable[[], Value]] = field(default_factory=dict)
    differentiable: set[Value] = field(default_factory=set)
    counter: int = 0

    def new(self, hint: str, shape: tuple[int, ...], role: ValueRole = "temporary") -> Value:
        """A fresh value."""
        self.counter += 1
        return Value(f"{hint}_{self.counter}", shape, role)

    def tensor(self, name: str, role: ValueRole) -> Value:
        """The value of a state_dict tensor: a program input when frozen, a mutable buffer otherwise."""
        if name not in self.tensors:
            value = Value(name, self.tensor_shapes[name], role)
            self.tensors[name] = value
            (self.graph.inputs if role == "frozen" else self.graph.state).append(value)
        return self.tensors[name]

    def again(self, value: Value) -> Value:
        """`value` for the backward pass: itself if it was saved, else computed again here."""
        recipe = self.recipes.get(value)
        return value if recipe is None else recipe()

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """The same bytes with another shape."""
        self.counter += 1
        return Value(f"{value.name}_view{self.counter}", shape, value.role, value.dtype, storage=value)

    def backward(self, output: Value, gradient: Value) -> None:
        """Emit the backward pass from the gradient of `output`."""
        gradients: dict[Value, Value] = {output: gradient}
        for value, rule in reversed(self.tape):
            incoming = gradients.pop(value, None)
            if incoming is None:
                continue
            for source, contribution in rule(self, incoming):
                if source in gradients:
                    gradients[source] = self._sum(gradients[source], contribution)
                else:
                    gradients[source] = contribution

    def _sum(self, first: Value, second: Value) -> Value:
        """first + second; joined into the convolution that computes one of them, so that no third tensor lives."""
        for operation in reversed(self.graph.operations):
            if operation.operator == "conv2d_input_grad" and operation.outputs[0] is second:
                if operation.arguments[2] is None:
                    operation.arguments = (*operation.arguments[:2], first, *operation.arguments[3:])
                    return second
                break
        total = self.new("gradient_sum", first.shape)
        self.graph.emit("add", (first, second, False), (total,))
        return total

    def update(self, parameter: Value, gradient: Value) -> None:
        """Emit the optimizer step of one parameter, in place."""
        rate = self.tensors[LEARNING_RATE_INPUT]
        momentum: Value | None = None
        if self.optimizer.momentum > 0:
            name = optimizer_state_name("momentum", parameter.name)
            momentum = Value(name, parameter.shape, "optimizer_state")
            self.graph.state.append(momentum)
        new_parameter = Value(f"{parameter.name}.new", parameter.shape, parameter.role, storage=parameter)
        new_momentum = (
            None
            if momentum is None
            else Value(f"{momentum.name}.new", parameter.shape, momentum.role, storage=momentum)
        )
        self.graph.emit(
            "sgd",
            (parameter, gradient, rate, momentum, self.optimizer.momentum, self.optimizer.weight_decay),
            (new_parameter, new_momentum),
        )

    def gradient_of(self, parameter: Value) -> Value:
        """A fresh value for a parameter's gradient."""
        return self.new(f"{parameter.name}.gradient", parameter.shape, "gradient")


def build_train_step(
    *,
    prefix: tuple[UnitLayers, ...],
    active: tuple[UnitLayers, ...],
    stand_ins: tuple[StandIn, ...],
    head: UnitLayers,
    shapes: Shapes,
    tensor_shapes: Shapes,
    input_name: str,
    optimizer: Optimizer,
) -> StepGraph:
    """One training step: `prefix` frozen, `active` and the output module (`stand_ins` + `head`) trained.

    Program inputs: images [batch, C, H, W], labels [batch] int64, learning rate (scalar), then the frozen tensors.
    Output: the loss, scalar.
    """
    from edge_runtime.export.layers import frozen_layers, train_layer

    builder = TrainStepBuilder(tensor_shapes=tensor_shapes, optimizer=optimizer)
    batch = shapes[input_name][0]
    images = _input(builder, IMAGES_INPUT, shapes[input_name])
    labels = _input(builder, LABELS_INPUT, (batch,), "int64")
    _input(builder, LEARNING_RATE_INPUT, ())
    values = frozen_layers(builder, [layer for unit in prefix for layer in unit.layers], {input_name: images})
    builder.graph.prefix_operations = len(builder.graph.operations)
    for unit in active:
        for layer in unit.layers:
            values[layer.output] = train_layer(builder, layer, values)
    current = values[active[-1].output] if active else images
    logits = _output_module(builder, current, stand_ins, head)
    loss = builder.new("loss", ())
    gradient = builder.new("logits_gradient", logits.shape)
    builder.graph.emit("cross_entropy", (logits, labels), (loss, gradient))
    builder.graph.outputs.append(loss)
    builder.backward(logits, gradient)
    drop_unused(builder.graph)
    return builder.graph


def build_evaluation(
    *,
    units: tuple[UnitLayers, ...],
    stand_ins: tuple[StandIn, ...],
    head: UnitLayers,
    shapes: Shapes,
    tensor_shapes: Shapes,
    input_name: str,
) -> StepGraph:
    """Inference of `units` and an output module: images -> logits [batch, classes]; every tensor is an input."""
    from edge_runtime.export.layers import frozen_layers

    builder = TrainStepBuilder(tensor_shapes=tensor_shapes, optimizer=Optimizer(name="sgd"))
    images = _input(builder, IMAGES_INPUT, shapes[input_name])
    values = frozen_layers(builder, [layer for unit in units for layer in unit.layers], {input_name: images})
    layers = _output_module_layers(values[units[-1].output].shape, units[-1].output, stand_ins, head, tensor_shapes)
    values = frozen_layers(builder, layers, {units[-1].output: values[units[-1].output]})
    builder.graph.outputs.append(values[layers[-1].output])
    builder.graph.prefix_operations = 0
    return builder.graph


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """The 3x3 convolution that stands in for one block behind the active one."""

    name: str
    stride: tuple[int, int]


def _output_module(
    builder: TrainStepBuilder, current: Value, stand_ins: tuple[StandIn, ...], head: UnitLayers
) -> Value:
    from edge_runtime.export.layers import train_layer

    values = {"block_output": current}
    logits = current
    for layer in _output_module_layers(current.shape, "block_output", stand_ins, head, builder.tensor_shapes):
        logits = values[layer.output] = train_layer(builder, layer, values)
    return logits


def _output_module_layers(
    shape: tuple[int, ...], start: str, stand_ins: tuple[StandIn, ...], head: UnitLayers, tensor_shapes: Shapes
) -> list[Layer]:
    """Stand-in convolutions, global average pooling and the model's own linear layer."""
    layers: list[Layer] = []
    current = start
    batch, _, height, width = shape
    for stand_in in stand_ins:
        channels = tensor_shapes[stand_in.name][0]
        height = (height - 1) // stand_in.stride[0] + 1
        width = (width - 1) // stand_in.stride[1] + 1
        layers.append(
            Layer(
                kind="conv2d",
                inputs=(current,),
                output=stand_in.name,
                shape=(batch, channels, height, width),
                module=stand_in.name,
                tensors=(stand_in.name, None),
                attributes={"stride": stand_in.stride, "padding": (1, 1), "dilation": (1, 1), "groups": 1},
            )
        )
        current = stand_in.name
    linear = head.layers[-1]
    weight = linear.tensors[0]
    assert weight is not None
    classes, features = tensor_shapes[weight]
    layers.append(
        Layer(kind="global_average_pool", inputs=(current,), output="pooled", shape=(batch, features), module="head")
    )
    layers.append(
        Layer(
            kind="linear",
            inputs=("pooled",),
            output="logits",
            shape=(batch, classes),
            module=linear.module,
            tensors=linear.tensors,
        )
    )
    return layers


def _input(builder: TrainStepBuilder, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Value:
    value = Value(name, shape, "input", "int64" if dtype == "int64" else "float32")
    builder.graph.inputs.append(value)
    builder.tensors[name] = value
    return value


def drop_unused(graph: StepGraph) -> None:
    """Remove operations none of whose results are read, such as a recomputation that turned out unneeded."""
    kept: list[Operation] = []
    needed = {value.root for value in graph.outputs} | set(graph.state)
    prefix = 0
    for position in range(len(graph.operations) - 1, -1, -1):
        operation = graph.operations[position]
        if any(output.root in needed for output in operation.writes):
            kept.append(operation)
            needed.update(value.root for value in operation.reads)
            prefix += position < graph.prefix_operations
    graph.operations = kept[::-1]
    graph.prefix_operations = prefix
