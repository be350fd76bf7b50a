"""Capture a PyTorch module as a list of layers, through `torch.export`."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import OutputKind, TensorArgument

from device_profiles.contract import DType
from device_profiles.errors import UsageError
from device_profiles.settings import THE_MODEL
from edge_runtime.export.capture.nodes import (
    CHECKS,
    arguments_of,
    counts_batches,
    is_several,
    module_of,
    name_of,
    place_of,
    root_of,
    target_of,
)
from edge_runtime.export.capture.tracing import exported
from edge_runtime.export.capture.whose import Owners, is_mixed, of_input, owners_of
from edge_runtime.export.ir.constants import Constants
from edge_runtime.export.ir.faults import faults_named
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered, contributing, numbered
from edge_runtime.export.operators import CAPTURES, IDENTITIES

_DROPS = frozenset({"dropout", "scaled_dot_product_attention"})
"""Operators whose random numbers are this runtime's own."""


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
    fixed: frozenset[str] = frozenset()
    """Tensors that no training changes, unless as running statistics: buffers, constants, frozen parameters."""
    log_probabilities: bool = False
    """Whether the model puts out the logarithms of probabilities, of which cross-entropy is the same as of logits."""


def capture(
    model: nn.Module, *, batch: int, input_shape: tuple[int, ...], input_dtype: DType = "float32"
) -> CapturedModel:
    """Capture `model` for inputs [batch, *input_shape] of `input_dtype` (tokens are int64).

    Raises UsageError, naming the operator and its module, for one that this runtime does not train.
    """
    _refuse_cumulative_averages(model)
    if not trained_names(model):
        raise UsageError((THE_MODEL, " has nothing to train: no parameter, or none with requires_grad=True"))
    program = exported(model, batch=batch, input_shape=input_shape, input_dtype=input_dtype)
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise UsageError(
            (THE_MODEL, f" takes {len(signature.user_inputs)} tensors and returns {len(signature.user_outputs)}"),
            remedy="wrap it in a module that takes one and returns the logits",
        )
    (output,) = (spec.arg for spec in program.graph_signature.output_specs if spec.kind == OutputKind.USER_OUTPUT)
    structure = program.call_spec.out_spec
    if structure is not None and not structure.is_leaf():
        raise UsageError(
            (THE_MODEL, f" returns a {structure.type.__name__}, not a tensor"),
            remedy="wrap it in a module that returns the logits",
        )
    if not isinstance(output, TensorArgument):
        raise UsageError((THE_MODEL, " returns no tensor"), remedy="wrap it in a module that returns the logits")
    return _Capture(program, model).run()


def _refuse_cumulative_averages(model: nn.Module) -> None:
    """PyTorch's tracer would stop at the number of batches that such a BatchNorm reads, without naming it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None:
            raise UsageError(
                f"module '{name}': {type(module).__name__} with momentum=None, the average of all batches so far, is "
                "not trained by this runtime; give it a momentum, such as PyTorch's 0.1"
            )


class _Capture:
    """One walk over an exported graph."""

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module) -> None:
        signature = program.graph_signature
        state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        kept = model.state_dict()
        self._nodes = list(program.graph.nodes)
        self._position = {node: i for i, node in enumerate(self._nodes)}
        self._buffers = signature.inputs_to_buffers
        self._state = {node: name for node, name in state.items() if name in kept}
        self._fixed = frozenset(kept) - trained_names(model)
        self._input = str(signature.user_inputs[0])
        self._output = str(signature.user_outputs[0])
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._owners: dict[str, Owners] = {}
        self._renamed: dict[str, str] = {}
        self._layers: list[Layer] = []
        self._folded = Constants(program)
        self._new_constants: dict[str, torch.Tensor] = {}
        self._log_probabilities = False
        self._refuse_changed_buffers(signature.buffers_to_mutate.values())

    def run(self) -> CapturedModel:
        for node in self._nodes:
            if node.name == self._input:
                self._shapes[node.name] = tuple(node.meta["val"].shape)
                self._owners[node.name] = of_input(self._shapes[node.name])
            if node.op != "call_function" or counts_batches(node, self._state) or name_of(node) in CHECKS:
                continue
            self._refuse_random_numbers(node)
            if not self._folded.take(node) and not is_several(node):
                self._take(node)
        output = self._renamed.get(self._output, self._output)
        layers = contributing(self._layers, output)
        if not layers:
            raise UsageError((THE_MODEL, "'s output does not follow from its input"))
        self._refuse_mixed(layers)
        return CapturedModel(
            layers=numbered(layers),
            input_name=self._input,
            input_shape=self._shapes[self._input],
            shapes=self._shapes,
            constants=self._new_constants,
            fixed=self._fixed | frozenset(self._new_constants),
            log_probabilities=self._log_probabilities,
        )

    def _take(self, node: torch.fx.Node) -> None:
        call = self._call(node)
        if call is None:
            return
        try:
            if self._is_identity(call):
                self._renamed[node.name] = call.activation("self")
                self._add(call.before)
                return
            self._refuse_other_types(node)
            if call.operator not in CAPTURES:
                raise NotCovered(_REASONS.get(call.operator, ""))
            self._refuse_change_of_views(node)
            with faults_named(f"{place_of(call.node)}: operator {target_of(node)} could not be captured"):
                layer = self._captured(call)
            if isinstance(layer, NotCovered):
                raise layer
        except NotCovered as error:
            reason = f" ({error})" if str(error) else ""
            raise UsageError(
                f"{place_of(call.node)}: operator {target_of(node)} has no training kernel in this runtime{reason}; "
                "write it with operators that docs/operators.md lists, or leave it out"
            ) from None
        self._add([*call.before, layer])

    @staticmethod
    def _captured(call: CapturedNode) -> Layer | NotCovered:
        """The call's layer; what is not covered is no fault and goes past those who name faults."""
        try:
            return CAPTURES[call.operator](call)
        except NotCovered as error:
            return error

    def _is_identity(self, call: CapturedNode) -> bool:
        """Whether the call leaves its first argument as it is, or cross-entropy takes it over."""
        rule = IDENTITIES.get(call.operator)
        if rule is None or not rule(call):
            return False
        self._log_probabilities = self._log_probabilities or call.operator == "log_softmax"
        return True

    def _refuse_random_numbers(self, node: torch.fx.Node) -> None:
        """Raise UsageError where forward draws random numbers: a captured graph would have one draw for ever."""
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded not in tags or name_of(node) in _DROPS or not node.users:
            return
        if name_of(node) in ("feature_dropout", "alpha_dropout", "feature_alpha_dropout") and not node.args[2]:
            return
        raise UsageError(
            f"{place_of(node)}: operator {node.target} has no training kernel in this runtime (it draws random "
            "numbers, as noise and stochastic depth do; nn.Dropout is covered); set its rate to 0, or leave it out"
        )

    def _refuse_changed_buffers(self, returned: Any) -> None:
        """Raise UsageError where forward changes a buffer: every step would start from its exported value."""
        changed = {name for name in returned if name is not None}
        for node in self._nodes:
            if node.op == "call_function" and name_of(node, bare=False).endswith("_"):
                root = root_of(node.args[0]) if isinstance(node.args[0], torch.fx.Node) else node
                changed.add(self._buffers.get(root.name, ""))
        for name in sorted(changed - {""}):
            if not name.endswith("num_batches_tracked"):
                raise UsageError(
                    f"buffer '{name}' is changed by forward, and this runtime would start every step from its exported "
                    "value; leave the change out of forward, or make it in the factory"
                )

    def _refuse_other_types(self, node: torch.fx.Node) -> None:
        """Raise NotCovered where a result is not float32; tokens are looked up as they come."""
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype not in (torch.float32, torch.int64):
            kind = str(value.dtype).removeprefix("torch.")
            raise NotCovered(f"with a result of {kind}; this runtime computes in float32")

    def _refuse_mixed(self, layers: tuple[Layer, ...]) -> None:
        """Raise UsageError, naming the module, where the result for one example follows from others."""
        for layer in layers:
            if is_mixed(self._owners[layer.output]):
                place = f"module '{layer.module}'" if layer.module else "the model's own forward"
                raise UsageError(
                    f"{place}: its result ({layer.kind}) for one example of the batch follows from others as well; "
                    "write forward so that examples do not see each other"
                )

    def _add(self, layers: list[Layer]) -> None:
        for layer in layers:
            self._shapes[layer.output] = layer.shape
            self._owners[layer.output] = owners_of(layer, self._owners, self._shapes)
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
            operator=name_of(called),
            index=index,
            arguments=arguments_of(called),
            module=module_of(node),
            state=self._state,
            fixed=self._fixed,
            known=self._shapes,
            renamed=self._renamed,
            owners=self._owners,
            constants=self._folded.values,
            new_constants=self._new_constants,
        )

    def _refuse_change_of_views(self, node: torch.fx.Node) -> None:
        """Raise NotCovered where an operator in place changes bytes that are read later under another name."""
        if not name_of(node, bare=False).endswith("_"):
            return
        changed = node.args[0]
        assert isinstance(changed, torch.fx.Node)
        family = root_of(changed)
        here = self._position[node]
        names = [other for other in self._nodes[:here] if other.op != "output" and root_of(other) is family]
        if any(self._position[user] > here for other in names for user in other.users):
            raise NotCovered("in place on a tensor that is read later under another name")


_REASONS = {
    "wrap_with_set_grad_enabled": "it switches gradients off or on in a part of forward; requires_grad=False keeps "
    "parameters as they are, detach() ends a gradient",
    "log_softmax": "before the end of the model, where cross-entropy takes it over",
    "to": "it changes the element type; this runtime computes in float32",
}
"""Why some operators are not covered, where their names do not say it."""


def trained_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that PyTorch would train, each under all of its names."""
    return frozenset(name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)
