"""Capture a PyTorch module as a list of layers, through `torch.export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from device_profiles.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One operator of the model. `inputs` and `output` name activations; `tensors` name `state_dict` entries."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    module: str
    tensors: tuple[str | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturedModel:
    """Layers in execution order; shapes carry the batch of the example they were captured with."""

    layers: tuple[Layer, ...]
    input_name: str
    input_shape: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]


def capture(model: nn.Module, *, batch: int, input_shape: tuple[int, ...]) -> CapturedModel:
    """Capture `model` for inputs [batch, *input_shape] of float32.

    Raises UsageError, naming the operator and its module, for one that this runtime does not train.
    """
    example = torch.zeros(batch, *input_shape)
    was_training = model.training
    try:
        program = torch.export.export(model.train(), (example,))
    finally:
        model.train(was_training)
    signature = program.graph_signature
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    user_inputs = list(signature.user_inputs)
    layers: list[Layer] = []
    shapes: dict[str, tuple[int, ...]] = {}
    renamed: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in user_inputs:
            shapes[node.name] = tuple(node.meta["val"].shape)
        if node.op != "call_function" or _counts_batches(node, tensors):
            continue
        layer = _layer(node, tensors, renamed)
        if layer is None:
            renamed[node.name] = renamed.get(node.args[0].name, node.args[0].name)
            continue
        shapes[layer.output] = layer.shape
        layers.append(layer)
    return CapturedModel(
        layers=tuple(layers), input_name=user_inputs[0], input_shape=shapes[user_inputs[0]], shapes=shapes
    )


def _counts_batches(node: torch.fx.Node, tensors: dict[str, str]) -> bool:
    """Whether the node only increments a BatchNorm's `num_batches_tracked`, which training here leaves alone."""
    first = node.args[0] if node.args else None
    name = tensors.get(first.name, "") if isinstance(first, torch.fx.Node) else ""
    return name.endswith("num_batches_tracked")


def _module_name(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))


def _layer(node: torch.fx.Node, tensors: dict[str, str], renamed: dict[str, str]) -> Layer | None:
    """The layer for a node; None when it leaves its input as it is (identity, `contiguous`)."""
    operator = str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")
    arguments = _normalised(node)
    module = _module_name(node)

    def activation(name: str) -> str:
        produced = str(arguments[name].name)
        return renamed.get(produced, produced)

    def tensor(name: str) -> str | None:
        value = arguments.get(name)
        return None if value is None else tensors[value.name]

    def make(kind: str, inputs: tuple[str, ...], names: tuple[str | None, ...] = (), **attributes: object) -> Layer:
        return Layer(
            kind=kind,
            inputs=inputs,
            output=node.name,
            shape=tuple(node.meta["val"].shape),
            module=module,
            tensors=names,
            attributes=attributes,
        )

    if operator == "conv2d" and not isinstance(arguments["padding"], str):
        return make(
            "conv2d",
            (activation("input"),),
            (tensor("weight"), tensor("bias")),
            stride=_pair(arguments["stride"]),
            padding=_pair(arguments["padding"]),
            dilation=_pair(arguments["dilation"]),
            groups=int(arguments["groups"]),
        )
    if operator == "batch_norm" and tensor("weight") and tensor("running_mean"):
        names = tuple(tensor(n) for n in ("weight", "bias", "running_mean", "running_var"))
        return make(
            "batch_norm",
            (activation("input"),),
            names,
            momentum=float(arguments["momentum"]),
            eps=float(arguments["eps"]),
            relu=False,
        )
    if operator == "relu":
        return make("relu", (activation("self"),))
    if operator == "add" and _adds_same_shapes(arguments):
        return make("add", (activation("self"), activation("other")), relu=False)
    if operator == "max_pool2d":
        kernel = _pair(arguments["kernel_size"])
        return make(
            "max_pool2d",
            (activation("self"),),
            kernel=kernel,
            stride=_pair(arguments["stride"]) if arguments["stride"] else kernel,
            padding=_pair(arguments["padding"]),
            dilation=_pair(arguments["dilation"]),
            ceil_mode=bool(arguments["ceil_mode"]),
        )
    if operator == "adaptive_avg_pool2d" and _pair(arguments["output_size"]) == (1, 1):
        return make("global_average_pool", (activation("self"),))
    if operator == "mean" and sorted(d % 4 for d in arguments["dim"] or ()) == [2, 3] and len(_shape(node, 0)) == 4:
        return make("global_average_pool", (activation("self"),))
    if operator in ("flatten", "view", "reshape", "squeeze"):
        return make("reshape", (activation(next(iter(arguments))),))
    if operator == "linear" and len(_shape(node, 0)) == 2:
        return make("linear", (activation("input"),), (tensor("weight"), tensor("bias")))
    if operator in ("contiguous", "alias", "detach") or (operator == "dropout" and float(arguments["p"]) == 0.0):
        return None
    raise UsageError(f"module '{module or 'model'}': operator {node.target} has no training kernel in this runtime")


def _adds_same_shapes(arguments: dict[str, Any]) -> bool:
    first, second = arguments["self"], arguments["other"]
    if not isinstance(second, torch.fx.Node) or arguments.get("alpha", 1) != 1:
        return False
    return bool(first.meta["val"].shape == second.meta["val"].shape)


def _shape(node: torch.fx.Node, position: int) -> tuple[int, ...]:
    argument = node.args[position]
    assert isinstance(argument, torch.fx.Node)
    return tuple(argument.meta["val"].shape)


def _normalised(node: torch.fx.Node) -> dict[str, Any]:
    """The node's arguments by name, with the schema's defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]  # an OpOverload, by torch.export's contract
    named: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            named[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        else:
            named[argument.name] = argument.default_value
    return named
