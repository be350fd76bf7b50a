"""What a captured graph computes from constants alone: positions, masks. It is computed at export."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


class Constants:
    """Values of the nodes of an exported program that follow from no parameter and no input.

    Floating-point buffers of the `state_dict` are tensors of the model, which a bundle carries anyway; what is computed
    from them is not folded. Those that are not persistent are constants. `values` is by name of node.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        signature = program.graph_signature
        self.values: dict[str, torch.Tensor] = {}
        self._several: dict[str, Any] = {}
        for node, name in signature.inputs_to_buffers.items():
            persistent = name in program.state_dict
            value = program.state_dict[name] if persistent else program.constants[name]
            if not (persistent and value.is_floating_point()) and name not in signature.buffers_to_mutate.values():
                self.values[node] = value
        for node, name in signature.inputs_to_lifted_tensor_constants.items():
            self.values[node] = program.constants[name]

    def _make(self, node: torch.fx.Node) -> None:
        like = node.args[0]
        assert isinstance(like, torch.fx.Node)
        known = {like.name: torch.zeros(tuple(like.meta["val"].shape), dtype=like.meta["val"].dtype)}
        positional, named = _filled((node.args, node.kwargs), known)
        self.values[node.name] = node.target(*positional, **named)  # type: ignore[operator]  # an operator

    def take(self, node: torch.fx.Node) -> bool:
        """Compute `node` where all its arguments are constants; whether it was."""
        if str(node.target).removeprefix("aten.").split(".")[0] in _OF_A_SHAPE:
            self._make(node)
            return True
        arguments = list(_nodes((node.args, node.kwargs)))
        if node.target is operator.getitem and arguments[0].name in self._several:
            self.values[node.name] = self._several[arguments[0].name][node.args[1]]
            return True
        known = all(argument.name in self.values for argument in arguments)
        kind = node.meta.get("val")
        if not known or not isinstance(kind, (torch.Tensor, tuple, list)):
            return bool(arguments) and known and not node.users
        with torch.no_grad():
            positional, named = _filled((node.args, node.kwargs), self.values)
            result = node.target(*positional, **named)  # type: ignore[operator]  # an operator
        if isinstance(kind, torch.Tensor):
            self.values[node.name] = result
        else:
            self._several[node.name] = result
        return True


_OF_A_SHAPE = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"},
)
"""Operators that ask of a tensor for nothing but its shape and type."""


def _nodes(argument: Any) -> Iterator[torch.fx.Node]:
    if isinstance(argument, torch.fx.Node):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for part in argument:
            yield from _nodes(part)
    elif isinstance(argument, dict):
        yield from _nodes(list(argument.values()))


def _filled(argument: Any, values: dict[str, torch.Tensor]) -> Any:
    if isinstance(argument, torch.fx.Node):
        return values[argument.name]
    if isinstance(argument, (tuple, list)):
        return type(argument)(_filled(part, values) for part in argument)
    if isinstance(argument, dict):
        return {key: _filled(part, values) for key, part in argument.items()}
    return argument


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """What attention adds to its scores: nothing, minus infinity for later keys, or a constant tensor.

    `view` is where a row of it begins, as an offset and strides for batch, head and query.
    """

    value: torch.Tensor | None = None
    causal: bool = False
    view: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, value: torch.Tensor, queries: int, keys: int) -> Mask:
        """A mask that is broadcast to [batch, heads, queries, keys]; booleans say which keys are seen."""
        added = value
        if value.dtype == torch.bool:
            added = torch.zeros(value.shape).masked_fill(~value, -torch.inf)
        added = added.to(torch.float32)
        while added.dim() < 4:
            added = added[None]
        for dim in (0, 1):
            if added.shape[dim] > 1 and bool((added == added.narrow(dim, 0, 1)).all()):
                added = added.narrow(dim, 0, 1)
        hidden = added <= torch.finfo(torch.float32).min / 2
        if not bool(added.any()):
            return cls()
        later = torch.ones(queries, keys, dtype=torch.bool).triu(1)
        if bool((hidden == later).all()) and not bool(added.masked_fill(hidden, 0.0).any()):
            return cls(causal=True)
        added = added.expand(*added.shape[:2], queries, keys).contiguous()
        batch, head = (0 if added.shape[dim] == 1 else added.stride(dim) for dim in (0, 1))
        return cls(value=added, view=(0, batch, head, keys))
