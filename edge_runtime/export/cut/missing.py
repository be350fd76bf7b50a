"""A block that is not there, and what stands in for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_runtime.export.ir.layers import Layer

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """What stands in for one block.

    Attributes:
        name: the weight's name in a bundle.
        weight_shape: shape of that weight, which is all that a stand-in has.
        before: shape of what the block starts from, with the batch.
        layers: from the activation that the block starts from to the one it leaves, by the same names.
    """

    name: str
    weight_shape: Shape
    before: Shape
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingBlock:
    """A block that is not there: what it starts from and leaves (names, and shapes with the batch).

    `last_before` and `last_after` say whether these keep their features in their last dimension (`layouts.py`).
    """

    name: str
    input: str
    output: str
    before: Shape
    after: Shape
    last_before: bool
    last_after: bool

    def layer(self, kind: str, shape: Shape, *, start: str | None = None, **attributes: Any) -> Layer:
        """A layer that carries the stand-in's weight and leaves the block's output."""
        return Layer(
            kind=kind,
            inputs=(self.input if start is None else start,),
            output=self.output,
            shape=shape,
            module=self.name,
            tensors=(self.name, None),
            attributes=attributes,
        )
