"""Capture a PyTorch module as a list of layers, through `torch.export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from device_profiles.errors import UsageError
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import CAPTURES, IDENTITIES


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
    state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    user_inputs = list(signature.user_inputs)
    layers: list[Layer] = []
    shapes: dict[str, tuple[int, ...]] = {}
    renamed: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in user_inputs:
            shapes[node.name] = tuple(node.meta["val"].shape)
        if node.op != "call_function" or _counts_batches(node, state):
            continue
        layer = _layer(node, state, renamed)
        if layer is None:
            renamed[node.name] = renamed.get(node.args[0].name, node.args[0].name)
            continue
        shapes[layer.output] = layer.shape
        layers.append(layer)
    return CapturedModel(
        layers=tuple(layers), input_name=user_inputs[0], input_shape=shapes[user_inputs[0]], shapes=shapes
    )


def _counts_batches(node: torch.fx.Node, state: dict[str, str]) -> bool:
    """Whether the node only increments a BatchNorm's `num_batches_tracked`, which training here leaves alone."""
    first = node.args[0] if node.args else None
    name = state.get(first.name, "") if isinstance(first, torch.fx.Node) else ""
    return name.endswith("num_batches_tracked")


def _layer(node: torch.fx.Node, state: dict[str, str], renamed: dict[str, str]) -> Layer | None:
    """The layer for a node; None when it leaves its input as it is (identity, `contiguous`)."""
    operator = str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")
    call = CapturedNode(node=node, arguments=_normalised(node), module=_module_name(node), state=state, renamed=renamed)
    reason = ""
    if operator in IDENTITIES and IDENTITIES[operator](call):
        return None
    if operator in CAPTURES:
        try:
            return CAPTURES[operator](call)
        except NotCovered as error:
            reason = f" ({error})"
    raise UsageError(
        f"module '{call.module or 'model'}': operator {node.target} has no training kernel in this runtime{reason}"
    )


def _module_name(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


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
