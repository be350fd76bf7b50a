"""Capture a PyTorch module as a list of layers, through `torch.export`."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from device_profiles.contract import DType
from device_profiles.errors import UsageError
from edge_runtime.export.constants import Constants
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import CAPTURES, IDENTITIES
from edge_runtime.export.operators.shape import VIEWS

_ONE_VALUE = "Expected more than 1 value per channel when training"
"""How PyTorch's BatchNorm begins its refusal of a batch that has no variance."""


_REMEDIES = (
    ("argument #1 'indices'", "; a model of tokens needs --input-dtype int64"),
    ("data-dependent", "; write forward so that no value of a tensor decides what is run (if, while, .item())"),
)
"""What to do about some of the reasons that PyTorch gives, by what is in them."""
_CALLED_AT = re.compile(r'The following call raised this error:\s+File "(.+)", line (\d+)')


class OneValueError(UsageError):
    """A BatchNorm would be trained with one value a channel: the batch of an execution is too small for this model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturedModel:
    """Layers in execution order, the last of which gives the logits; shapes carry the batch of the example they were
    captured with."""

    layers: tuple[Layer, ...]
    input_name: str
    input_shape: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    """Tensors that follow from neither parameters nor input and are no part of the `state_dict`, such as masks."""


def capture(
    model: nn.Module, *, batch: int, input_shape: tuple[int, ...], input_dtype: DType = "float32"
) -> CapturedModel:
    """Capture `model` for inputs [batch, *input_shape] of `input_dtype` (tokens are int64).

    Raises UsageError, naming the operator and its module, for one that this runtime does not train.
    """
    _refuse_cumulative_averages(model)
    program = exported(model, batch=batch, input_shape=input_shape, input_dtype=input_dtype)
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise UsageError(
            f"the model takes {len(signature.user_inputs)} tensors and returns {len(signature.user_outputs)}; wrap it "
            "in a module that takes one and returns the logits"
        )
    return _Capture(program, frozenset(model.state_dict())).run()


def _refuse_cumulative_averages(model: nn.Module) -> None:
    """PyTorch's tracer would stop at the number of batches that such a BatchNorm reads, without naming it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None:
            raise UsageError(
                f"module '{name}': {type(module).__name__} with momentum=None, the average of all batches so far, is "
                "not trained by this runtime; give it a momentum, such as PyTorch's 0.1"
            )


def exported(
    model: nn.Module, *, batch: int, input_shape: tuple[int, ...], input_dtype: DType = "float32"
) -> torch.export.ExportedProgram:
    """The module in training mode as PyTorch's own graph; raises UsageError with PyTorch's reason where it has none."""
    was_training = model.training
    try:
        example = example_input(batch, input_shape, input_dtype)
        with quiet():
            return torch.export.export(model.train(), (example,))
    except Exception as error:  # whatever a user's forward and PyTorch's tracer raise
        if batch == 1 and _ONE_VALUE in str(error):
            raise OneValueError("a BatchNorm of the model sees one value a channel in an execution") from None
        shape = "x".join(map(str, input_shape))
        raise UsageError(f"torch.export cannot trace the model for --input {shape}: {reason_of(error)}") from None
    finally:
        model.train(was_training)


def example_input(batch: int, input_shape: tuple[int, ...], input_dtype: DType) -> torch.Tensor:
    """Zeros as a model takes them: [batch, *input_shape], of float32 or of tokens (int64)."""
    return torch.zeros(batch, *input_shape, dtype=torch.int64 if input_dtype == "int64" else torch.float32)


def reason_of(error: BaseException) -> str:
    """The first line of what PyTorch says, or of what its own error was caused by: advice to its developers follows."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    remedy = next((remedy for known, remedy in _REMEDIES if known in reason), "")
    place = _CALLED_AT.search(str(error))
    return f"{reason}{f', at line {place[2]} of {place[1]}' if place else ''}{remedy}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what PyTorch's exporters log, print and warn of away from the user; errors are reported in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Capture:
    """One walk over an exported graph."""

    def __init__(self, program: torch.export.ExportedProgram, state_dict: frozenset[str]) -> None:
        signature = program.graph_signature
        state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._nodes = list(program.graph.nodes)
        self._position = {node: i for i, node in enumerate(self._nodes)}
        self._state = {node: name for node, name in state.items() if name in state_dict}
        self._parameters = frozenset(signature.inputs_to_parameters.values())
        self._input = str(signature.user_inputs[0])
        self._output = str(signature.user_outputs[0])
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._renamed: dict[str, str] = {}
        self._layers: list[Layer] = []
        self._folded = Constants(program)
        self._new_constants: dict[str, torch.Tensor] = {}

    def run(self) -> CapturedModel:
        for node in self._nodes:
            if node.name == self._input:
                self._shapes[node.name] = tuple(node.meta["val"].shape)
            if node.op != "call_function" or _counts_batches(node, self._state) or self._folded.take(node):
                continue
            if not _is_several(node):
                self._take(node)
        output = self._renamed.get(self._output, self._output)
        layers = _contributing(self._layers, output)
        if not layers:
            raise UsageError("the model's output does not follow from its input")
        return CapturedModel(
            layers=_numbered(layers),
            input_name=self._input,
            input_shape=self._shapes[self._input],
            shapes=self._shapes,
            constants=self._new_constants,
        )

    def _take(self, node: torch.fx.Node) -> None:
        call = self._call(node)
        if call is None:
            return
        try:
            if call.operator in IDENTITIES and IDENTITIES[call.operator](call):
                self._renamed[node.name] = call.activation("self" if "self" in call.arguments else "input")
                self._add(call.before)
                return
            if call.operator not in CAPTURES:
                raise NotCovered
            self._refuse_change_of_views(node)
            layer = CAPTURES[call.operator](call)
        except NotCovered as error:
            reason = f" ({error})" if str(error) else ""
            place = f"module '{call.module}'" if call.module else "the model's own forward"
            raise UsageError(
                f"{place}: operator {_target(node)} has no training kernel in this runtime{reason}; write it with "
                "operators that docs/operators.md lists, or leave it out"
            ) from None
        self._add([*call.before, layer])

    def _add(self, layers: list[Layer]) -> None:
        for layer in layers:
            self._shapes[layer.output] = layer.shape
            self._layers.append(layer)

    def _call(self, node: torch.fx.Node) -> CapturedNode | None:
        """The call that `node` is or takes a result of; None for a result that nobody reads."""
        called, index = node, None
        if node.target is operator.getitem:
            if not node.users:
                return None
            whole, place = node.args
            assert isinstance(whole, torch.fx.Node) and isinstance(place, int)
            called, index = whole, place
        return CapturedNode(
            node=node,
            operator=str(called.target).removeprefix("aten.").split(".")[0].rstrip("_"),
            index=index,
            arguments=_normalised(called),
            module=_module_name(node),
            state=self._state,
            parameters=self._parameters,
            known=self._shapes,
            renamed=self._renamed,
            constants=self._folded.values,
            new_constants=self._new_constants,
        )

    def _refuse_change_of_views(self, node: torch.fx.Node) -> None:
        """Raise NotCovered where an operator in place changes bytes that are read later under another name."""
        if not str(node.target).removeprefix("aten.").split(".")[0].endswith("_"):
            return
        changed = node.args[0]
        assert isinstance(changed, torch.fx.Node)
        family = _root(changed)
        here = self._position[node]
        names = [other for other in self._nodes[:here] if other.op != "output" and _root(other) is family]
        if any(self._position[user] > here for other in names for user in other.users):
            raise NotCovered("in place on a tensor that is read later under another name")


def _root(node: torch.fx.Node) -> torch.fx.Node:
    """The node whose bytes `node` shows, through views and operators in place."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], torch.fx.Node):
        name = str(node.target).removeprefix("aten.").split(".")[0]
        if node.target is not operator.getitem and name not in VIEWS and not name.endswith("_"):
            break
        node = node.args[0]
    return node


def _contributing(layers: list[Layer], output: str) -> tuple[Layer, ...]:
    """The layers that `output` depends on."""
    needed = {output}
    kept: list[Layer] = []
    for layer in reversed(layers):
        if layer.output in needed:
            kept.append(layer)
            needed.update(layer.inputs)
    return tuple(reversed(kept))


def _numbered(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers that drop something with their number among those: what they drop depends on it."""
    dropping = [layer.output for layer in layers if layer.attributes.get("dropout", 0.0) > 0.0]
    return tuple(
        replace(layer, attributes={**layer.attributes, "dropout_layer": dropping.index(layer.output)})
        if layer.output in dropping
        else layer
        for layer in layers
    )


def _counts_batches(node: torch.fx.Node, state: dict[str, str]) -> bool:
    """Whether the node only increments a BatchNorm's `num_batches_tracked`, which training here leaves alone."""
    first = node.args[0] if node.args else None
    # A BatchNorm that is run again increments what its first run left.
    name = state.get(_root(first).name, "") if isinstance(first, torch.fx.Node) else ""
    return name.endswith("num_batches_tracked")


def _is_several(node: torch.fx.Node) -> bool:
    """Whether a node has several results, each of which another node takes."""
    return isinstance(node.meta.get("val"), (tuple, list))


def _target(node: torch.fx.Node) -> str:
    whole = node.args[0] if node.target is operator.getitem else node
    return str(whole.target) if isinstance(whole, torch.fx.Node) else str(node.target)


def _module_name(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _normalised(node: torch.fx.Node) -> dict[str, Any]:
    """The node's arguments by name, with the schema's defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # a symbolic size or a Python function, not an operator
        return {}
    named: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            named[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        else:
            named[argument.name] = argument.default_value
    return named
