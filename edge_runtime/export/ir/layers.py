"""A captured model as data: layers, and one node of the captured graph as the operators' capture rules see it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from device_profiles.contract import CONSTANT_PREFIX

NOBODY = torch.iinfo(torch.int32).max
"""Whose an element is that follows from no example, in a tensor others of which do (see `whose.py`)."""


WHOLE_TYPES = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})
"""Element types of whole numbers. Those that a model computes are float32 here, which holds all of them up to 2^24."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One operator of the model. `inputs` and `output` name activations; `tensors` name `state_dict` entries.

    `shape` is the output's, with the batch of the example the model was captured with.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    module: str
    tensors: tuple[str | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


class NotCovered(Exception):
    """Raised by a capture rule for arguments that its operator does not cover; the message says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturedNode:
    """One call of an operator in the captured graph.

    Attributes:
        node: the call itself, or the part that is taken of its several results.
        operator: the ATen operator's name, without its overload and without the underscore of one in place.
        index: which of several results `node` is; None where there is one.
        arguments: its arguments by the schema's names, defaults filled in.
        module: dotted path of the module it comes from.
        state: `state_dict` name of every placeholder that stands for a tensor of the model.
        fixed: those of them that are not trained.
        owners: whose the elements of every activation are (see `whose.py`).
        known: every activation there is by now.
        renamed: activations that are another one under a new name (identities).
        steady: activations that no gradient goes through: of the input, of constants, of comparisons.
        whole: activations of whole numbers (int64), such as tokens.
        constants: values of results that follow from no parameter and no input of the model.
        before: layers that the call needs in front of its own, such as a parameter that is read as an activation.
        new_constants: tensors that the bundle must carry for the call, by the names they get.
    """

    node: torch.fx.Node
    operator: str
    index: int | None
    arguments: dict[str, Any]
    module: str
    state: dict[str, str]
    fixed: frozenset[str]
    known: Container[str]
    renamed: dict[str, str]
    owners: Mapping[str, torch.Tensor | None] = field(default_factory=dict)
    steady: Container[str] = frozenset()
    whole: Container[str] = frozenset()
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)
    before: list[Layer] = field(default_factory=list)
    new_constants: dict[str, torch.Tensor] = field(default_factory=dict)

    def activation(self, name: str) -> str:
        """Name of the activation that argument `name` is; raises NotCovered where it is none."""
        return self.activation_of(self.arguments[name], name)

    def activations(self, name: str) -> tuple[str, ...]:
        """Names of the activations in the list that argument `name` is; raises NotCovered where one is none."""
        return tuple(self.activation_of(value, name) for value in self.arguments[name])

    def activation_of(self, value: object, name: str) -> str:
        """Name of the activation that `value`, an argument or part of one, is."""
        if isinstance(value, torch.fx.Node):
            found = self.renamed.get(value.name, value.name)
            if found in self.known:
                return found
            if value.name in self.constants:
                return self.kept(name, self.constants[value.name])
            if found in self.state and value.meta["val"].is_floating_point():
                return self._of_model(value, self.state[found])
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.number(name, float(value))
        raise NotCovered(f"its argument '{name}' is not an activation")

    def _of_model(self, value: torch.fx.Node, tensor: str) -> str:
        """A tensor of the model, read as an activation of its own for this call."""
        output = f"{tensor}@{self.node.name}"
        if all(layer.output != output for layer in self.before):
            self.before.append(
                Layer(
                    kind="tensor",
                    inputs=(),
                    output=output,
                    shape=tuple(value.meta["val"].shape),
                    module=self.module,
                    tensors=(tensor,),
                )
            )
        return output

    def constant(self, name: str) -> torch.Tensor | None:
        """The value of argument `name` where it is a constant; None where it is none."""
        value = self.arguments.get(name)
        return self.constants.get(value.name) if isinstance(value, torch.fx.Node) else None

    def keep_constant(self, hint: str, value: torch.Tensor) -> str:
        """The name under which the bundle carries a constant of this call."""
        if value.is_complex():
            raise NotCovered("with a complex constant")
        value = value.reshape(1) if value.dim() == 0 else value
        name = f"{CONSTANT_PREFIX}{self.node.name}.{hint}"
        self.new_constants[name] = value.to(torch.float32).contiguous().clone()
        return name

    def kept(self, hint: str, value: torch.Tensor) -> str:
        """An activation that is this constant; one number becomes a tensor of one element."""
        value = value.reshape(1) if value.dim() == 0 else value
        tensor = self.keep_constant(hint, value)
        output = f"{tensor}@{self.node.name}"
        if all(layer.output != output for layer in self.before):
            shape, module = tuple(value.shape), self.module
            layer = Layer(kind="tensor", inputs=(), output=output, shape=shape, module=module, tensors=(tensor,))
            self.before.append(layer)
        return output

    def alike(self, value: torch.Tensor) -> torch.Tensor:
        """A constant that is broadcast to the result, with one row where those of all examples are the same: some of
        the examples may be run alone."""
        same = value.dim() == len(self.output_shape) > 1 and value.shape[0] > 1 and bool((value == value[:1]).all())
        return value[:1] if same else value

    def number(self, hint: str, value: float) -> str:
        """An activation of one element."""
        return self.kept(hint, torch.tensor(value, dtype=torch.float32))

    def tensor(self, name: str) -> str | None:
        """Name of the tensor of the model, or of the constant, that argument `name` is, None where it is None; raises
        NotCovered for anything else."""
        value = self.arguments.get(name)
        if value is None:
            return None
        if isinstance(value, torch.fx.Node) and value.name in self.constants:
            return self.keep_constant(name, self.constants[value.name])
        if not isinstance(value, torch.fx.Node) or value.name not in self.state:
            raise NotCovered(f"its argument '{name}' is not a tensor of the model")
        return self.state[value.name]

    def is_tensor(self, name: str) -> bool:
        """Whether argument `name` is a tensor of the model (parameter or buffer) or a constant."""
        value = self.arguments.get(name)
        return isinstance(value, torch.fx.Node) and (value.name in self.state or value.name in self.constants)

    def is_state(self, name: str) -> bool:
        """Whether argument `name` is a tensor of the `state_dict`."""
        value = self.arguments.get(name)
        return isinstance(value, torch.fx.Node) and value.name in self.state

    def is_trained(self, name: str) -> bool:
        """Whether argument `name` is a parameter of the model that is trained."""
        return self.is_state(name) and self.tensor(name) not in self.fixed

    def node_type(self, name: str) -> torch.dtype | None:
        """Element type of the tensor that argument `name` is."""
        value = self.arguments.get(name)
        return value.meta["val"].dtype if isinstance(value, torch.fx.Node) else None

    def over_examples(self, name: str, dims: Container[int]) -> bool:
        """Whether a result over these dimensions of the activation `name` follows from several examples.

        Never where it follows from parameters and constants alone.
        """
        owners = self.owners.get(self.activation(name))
        moved = [d for d in range(0 if owners is None else owners.dim()) if d in dims]
        if owners is None or not moved:
            return False
        first, last = owners.amin(moved), torch.where(owners == NOBODY, -2, owners).amax(moved)
        return bool(((first != last) & (last != -2)).any())

    def is_computed(self, name: str) -> bool:
        """Whether argument `name` is computed by the model from its parameters alone, such as a weight."""
        value = self.arguments.get(name)
        if not isinstance(value, torch.fx.Node) or self.is_tensor(name):
            return False
        found = self.renamed.get(value.name, value.name)
        return found in self.known and self.owners.get(found) is None

    def is_of_parameters(self, name: str) -> bool:
        """Whether argument `name` is a tensor of the model, or computed from such alone."""
        return self.is_tensor(name) or self.is_computed(name)

    @property
    def counts_truth(self) -> bool:
        """Whether the call makes numbers, 1 and 0, of truth values, or whole numbers of another type of whole ones."""
        first, kind = self.node.args[0], self.node.meta["val"].dtype
        if not isinstance(first, torch.fx.Node):
            return False
        before = first.meta["val"].dtype
        numbers = kind == torch.float32 or kind in WHOLE_TYPES
        return (before == torch.bool and numbers) or (before in WHOLE_TYPES and kind in WHOLE_TYPES)

    @property
    def keeps_type(self) -> bool:
        """Whether the result has the element type of the first argument."""
        first = self.node.args[0]
        return isinstance(first, torch.fx.Node) and first.meta["val"].dtype == self.node.meta["val"].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor that argument `name` is."""
        value = self.arguments[name]
        if not isinstance(value, torch.fx.Node):
            raise NotCovered(f"its argument '{name}' is not a tensor")
        return tuple(value.meta["val"].shape)

    @property
    def is_the_end(self) -> bool:
        """Whether the result is what the model puts out, for each example a row, and nothing else reads it."""
        return len(self.output_shape) == 2 and all(user.op == "output" for user in self.node.users)

    @property
    def part_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all results of an operator with several."""
        whole = self.node.args[0]
        assert isinstance(whole, torch.fx.Node)
        return tuple(tuple(part.shape) for part in whole.meta["val"])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(self.node.meta["val"].shape)

    def step(
        self,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        tensors: tuple[str | None, ...] = (),
        **attributes: object,
    ) -> str:
        """A layer in front of the call's own, for an operator that is several of ours; returns its output's name."""
        output = f"{self.node.name}.step{len(self.before)}"
        self.before.append(
            Layer(
                kind=kind,
                inputs=inputs,
                output=output,
                shape=shape,
                module=self.module,
                tensors=tensors,
                attributes=attributes,
            )
        )
        return output

    def layer(
        self, kind: str, inputs: tuple[str, ...], tensors: tuple[str | None, ...] = (), **attributes: object
    ) -> Layer:
        """The layer that this call becomes."""
        return Layer(
            kind=kind,
            inputs=inputs,
            output=self.node.name,
            shape=self.output_shape,
            module=self.module,
            tensors=tensors,
            attributes=attributes,
        )


def pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """A size given once or for both directions."""
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))
