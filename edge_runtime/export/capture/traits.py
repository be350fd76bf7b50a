"""What holds of activations whatever their values are: no gradient goes through them, or they are whole numbers."""

from __future__ import annotations

from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.elementwise import COMPARISONS
from edge_runtime.export.operators.view import VIEW_KINDS


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

    def add(self, layer: Layer, constants: frozenset[str]) -> None:
        """The result of a layer; `constants` are no tensors of the model."""
        compared = layer.kind == "arithmetic" and layer.attributes["operation"] in COMPARISONS
        still = all(name is None or name in self._fixed or name in constants for name in layer.tensors)
        if layer.kind == "detached" or compared or (still and self.steady.issuperset(layer.inputs)):
            self.steady.add(layer.output)
        if layer.kind in VIEW_KINDS and self.whole.issuperset(layer.inputs):
            self.whole.add(layer.output)
