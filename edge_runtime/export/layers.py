"""A captured model as data: layers, and one node of the captured graph as the operators' capture rules see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


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
        node: the call itself.
        arguments: its arguments by the schema's names, defaults filled in.
        module: dotted path of the module it comes from.
        state: `state_dict` name of every placeholder that stands for a tensor of the model.
        renamed: activations that are another one under a new name (identities).
    """

    node: torch.fx.Node
    arguments: dict[str, Any]
    module: str
    state: dict[str, str]
    renamed: dict[str, str]

    def activation(self, name: str) -> str:
        """Name of the activation that argument `name` is; raises NotCovered where it is none."""
        value = self.arguments[name]
        if not isinstance(value, torch.fx.Node) or value.name in self.state:
            raise NotCovered(f"its argument '{name}' is not an activation")
        return self.renamed.get(value.name, value.name)

    def tensor(self, name: str) -> str | None:
        """`state_dict` name of argument `name`, None where it is None; raises NotCovered for anything else."""
        value = self.arguments.get(name)
        if value is None:
            return None
        if not isinstance(value, torch.fx.Node) or value.name not in self.state:
            raise NotCovered(f"its argument '{name}' is not a tensor of the model")
        return self.state[value.name]

    def is_tensor(self, name: str) -> bool:
        """Whether argument `name` is a tensor of the model (parameter or buffer)."""
        value = self.arguments.get(name)
        return isinstance(value, torch.fx.Node) and value.name in self.state

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor that argument `name` is."""
        value = self.arguments[name]
        if not isinstance(value, torch.fx.Node):
            raise NotCovered(f"its argument '{name}' is not a tensor")
        return tuple(value.meta["val"].shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(self.node.meta["val"].shape)

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
