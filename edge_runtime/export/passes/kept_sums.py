"""Which sums are kept for the backward pass.

A sum follows from its summands, so it is computed again where it is needed. Where one summand is the output of a layer
that is stored anyway and that nothing else needs again, such as the projection in front of a residual addition, it is
better to keep the sum in its place: that costs no byte, and a chain of residual additions is not walked through for
every layer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import replace

from edge_runtime.export.capture.capture import CapturedModel
from edge_runtime.export.ir.layers import Layer

_STORED = frozenset({"linear", "conv2d", "conv_transpose2d", "attention", "embedding", "matmul", "tensor"})
"""Layers whose output is stored when the backward pass needs it."""
_THROUGH = frozenset({"dropout", "reshape", "add", "arithmetic", "permute", "view", "crop", "cat", "affine", "take"})
"""Layers whose gradient does not need their input, and whose output is computed again from it."""


_BETWEEN = frozenset({"dropout", "reshape", "view", "permute"})
"""Layers between a stored activation and the sum that takes its place, such as the order of a recurrence's steps."""
_STEPS = 3
"""Uses of one weight that make a recurrence."""
_DEEPEST = 8
"""Layers of a recurrence that are computed again one after the other."""


def keep_sums(model: CapturedModel) -> CapturedModel:
    """Sums that take the place of a summand get the attribute `keep`."""
    readers: dict[str, list[Layer]] = defaultdict(list)
    for layer in model.layers:
        for name in layer.inputs:
            readers[name].append(layer)
    producers = {layer.output: layer for layer in model.layers}
    kept: set[str] = set()

    def needed(name: str, without: str) -> bool:
        """Whether the backward pass asks for an activation, other than through the sum `without`."""
        for reader in readers[name]:
            if reader.output == without or reader.output in kept:
                continue
            if reader.kind not in _THROUGH or _multiplies(reader) or needed(reader.output, without):
                return True
        return False

    def replaces(name: str, total: Layer) -> bool:
        """Whether a stored activation behind summand `name` is needed for nothing but the sum."""
        producer = producers.get(name)
        while producer is not None and producer.kind in _BETWEEN and not needed(name, total.output):
            name = producer.inputs[0]
            producer = producers.get(name)
        return (
            producer is not None
            and producer.kind in _STORED
            and not needed(name, total.output)
            and _elements(producer) == _elements(total)
        )

    for layer in reversed(model.layers):
        plain = (layer.kind == "add" and layer.attributes["activation"] == "none") or _adds(layer)
        if plain and needed(layer.output, "") and any(replaces(name, layer) for name in layer.inputs):
            kept.add(layer.output)
    kept |= _of_recurrence(model, kept)
    layers = tuple(
        replace(layer, attributes={**layer.attributes, "keep": True}) if layer.output in kept else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)


def _of_recurrence(model: CapturedModel, kept: Set[str]) -> set[str]:
    """What is kept of a recurrence, every few layers: its state follows from that of the step before, and without this
    every step would be computed again from the first one on."""
    uses = Counter(layer.tensors[0] for layer in model.layers if layer.kind in ("linear", "tensor"))
    if max(uses.values(), default=0) < _STEPS:
        return set()
    depths: dict[str, int] = {}
    states: set[str] = set()
    for layer in model.layers:
        stored = layer.kind in _STORED or layer.output in kept
        depth = 0 if stored else 1 + max((depths.get(name, 0) for name in layer.inputs), default=0)
        if depth >= _DEEPEST and layer.kind in ("add", "arithmetic"):
            states.add(layer.output)
            depth = 0
        depths[layer.output] = depth
    return states


def _adds(layer: Layer) -> bool:
    return layer.kind == "arithmetic" and layer.attributes["operation"] == 0


def _multiplies(layer: Layer) -> bool:
    return layer.kind == "arithmetic" and layer.attributes["operation"] > 1


def _elements(layer: Layer) -> int:
    count = 1
    for extent in layer.shape:
        count *= extent
    return count
