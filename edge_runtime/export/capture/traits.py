"""What holds of activations whatever their values are: no gradient goes through them, or they are whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.elementwise import COMPARISONS
from edge_runtime.export.operators.view import VIEW_KINDS

_OF_WHOLE = frozenset({"embedding", "to_float", "reshape"})
"""Layers that take whole numbers as they are."""


class Traits:
    """Names of activations, of a model whose tensors in `fixed` are not trained."""

    def __init__(self, fixed: frozenset[str]) -> None:
        self._fixed = fixed
        self.steady: set[str] = set()
        self.whole: set[str] = set()

    def start(self, name: str, *, whole: bool) -> None:
        """The model's input."""
        self.steady.add(name)
        if whole:
            self.whole.add(name)

    def of_numbers(self, layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> list[Layer]:
        """The layer, behind those that make float32 of the whole numbers which it reads, such as tokens that move."""
        if layer.kind in _OF_WHOLE or self.whole.isdisjoint(layer.inputs):
            return [layer]
        names = {name: f"{name}@{layer.output}" for name in layer.inputs if name in self.whole}
        before = [
            Layer(kind="to_float", inputs=(name,), output=number, shape=shapes[name], module=layer.module)
            for name, number in names.items()
        ]
        return [*before, replace(layer, inputs=tuple(names.get(name, name) for name in layer.inputs))]

    def add(self, layer: Layer, constants: frozenset[str]) -> None:
        """The result of a layer; `constants` are no tensors of the model."""
        compared = layer.kind == "arithmetic" and layer.attributes["operation"] in COMPARISONS
        still = all(name is None or name in self._fixed or name in constants for name in layer.tensors)
        if layer.kind == "detached" or compared or (still and self.steady.issuperset(layer.inputs)):
            self.steady.add(layer.output)
        if layer.kind in VIEW_KINDS and self.whole.issuperset(layer.inputs):
            self.whole.add(layer.output)
