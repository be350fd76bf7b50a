"""Capture a PyTorch module as a list of layers, through `torch.export`."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import OutputKind, TensorArgument

from device_profiles.contract import CONSTANT_PREFIX, DType
from device_profiles.errors import UsageError
from device_profiles.settings import THE_MODEL
from edge_runtime.export.capture.decomposition import decomposed
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
from edge_runtime.export.capture.refusals import (
    REASONS,
    MissingError,
    is_random,
    refuse_change_of_views,
    refuse_cumulative_averages,
    refuse_other_types,
    refuse_random_numbers,
)
from edge_runtime.export.capture.rewritten import rewritten
from edge_runtime.export.capture.tracing import exported
from edge_runtime.export.capture.traits import Traits
from edge_runtime.export.capture.whose import Owners, is_mixed, of_input, owners_of
from edge_runtime.export.capture.writes import changed_whole, written
from edge_runtime.export.ir.constants import Constants
from edge_runtime.export.ir.draws import is_part
from edge_runtime.export.ir.faults import faults_named
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.ir.order import contributing, numbered
from edge_runtime.export.operators import CAPTURES, IDENTITIES

_DEEPEST = 4
"""Definitions within definitions."""


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
    refuse_cumulative_averages(model)
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


class _Capture:
    """One walk over an exported graph."""

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module) -> None:
        signature = program.graph_signature
        state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        kept = model.state_dict()
        self._folded = Constants(program)
        self._renamed = rewritten(program.graph, set(self._folded.values))
        self._nodes = list(program.graph.nodes)
        self._buffers = signature.inputs_to_buffers
        self._state = {node: name for node, name in state.items() if name in kept}
        self._fixed = frozenset(kept) - trained_names(model)
        self._input = str(signature.user_inputs[0])
        self._output = str(signature.user_outputs[0])
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._owners: dict[str, Owners] = {}
        self._traits = Traits(self._fixed)
        self._layers: list[Layer] = []
        self._new_constants: dict[str, torch.Tensor] = {}
        self._log_probabilities = False
        self._depth = 0
        self._refuse_changed_buffers(signature.buffers_to_mutate.values())

    def run(self) -> CapturedModel:
        for node in self._nodes:
            if node.name == self._input:
                self._shapes[node.name] = tuple(node.meta["val"].shape)
                self._owners[node.name] = of_input(self._shapes[node.name])
                self._traits.start(node.name, whole=node.meta["val"].dtype == torch.int64)
            self._visit(node)
        output = self._output
        while output in self._renamed:
            output = self._renamed[output]
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

    def _visit(self, node: torch.fx.Node) -> None:
        if node.op != "call_function" or counts_batches(node, self._state) or name_of(node) in CHECKS:
            return
        refuse_random_numbers(node)
        if is_part(node):
            return
        if (is_random(node) or not self._folded.take(node)) and not is_several(node):
            self._take(node)

    def _take(self, node: torch.fx.Node) -> None:
        """Add the layers of a call; of PyTorch's own definition of it, where there is no rule for the call itself."""
        call = self._call(node)
        if call is None:
            return
        try:
            if self._is_identity(call):
                self._renamed[node.name] = call.activation("self")
                self._add(call.before)
                return
            refuse_other_types(node, self._folded.values)
            if call.operator not in CAPTURES:
                raise NotCovered(REASONS.get(call.operator, ""))
            refuse_change_of_views(node)
            with faults_named(f"{place_of(call.node)}: operator {target_of(node)} could not be captured"):
                layer = self._captured(call)
            if isinstance(layer, NotCovered):
                raise layer
        except NotCovered as error:
            inner = self._defined_by_others(call)
            if inner is not None:
                raise MissingError(call.node, call.operator, str(error) or inner) from None
            return
        whole = changed_whole(node)
        if whole is None:
            self._add([*call.before, layer])
            return
        try:
            name = written(call, layer, whole)
        except NotCovered as error:
            raise MissingError(call.node, call.operator, str(error)) from None
        self._add(call.before)
        self._renamed[whole.name] = name
        self._folded.values.pop(whole.name, None)

    def _defined_by_others(self, call: CapturedNode) -> str | None:
        """Capture what PyTorch defines the operator by, in its place; None, or why not, as far as that is known."""
        called = call.node if call.index is None else call.node.args[0]
        assert isinstance(called, torch.fx.Node)
        for name in [name for name in self._new_constants if name.startswith(f"{CONSTANT_PREFIX}{call.node.name}.")]:
            del self._new_constants[name]
        if self._depth == _DEEPEST:
            return ""
        made, replaced = decomposed(called)
        self._renamed.update({old.name: new.name for old, new in replaced})
        self._depth += 1
        try:
            for node in made:
                self._visit(node)
        except MissingError as error:  # named by what the user wrote
            return error.inner
        except UsageError:
            return ""
        finally:
            self._depth -= 1
        return None if made else ""

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
        for whole in layers:
            for layer in self._traits.of_numbers(whole, self._shapes):
                self._shapes[layer.output] = layer.shape
                self._owners[layer.output] = owners_of(layer, self._owners, self._shapes)
                self._traits.add(layer, frozenset(self._new_constants))
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
            steady=self._traits.steady,
            whole=self._traits.whole,
            constants=self._folded.values,
            new_constants=self._new_constants,
        )


def trained_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that PyTorch would train, each under all of its names."""
    return frozenset(name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)
