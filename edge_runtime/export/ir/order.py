"""Layers in their order: those that count, and the numbers of those that drop something."""

from __future__ import annotations

from dataclasses import replace

from edge_runtime.export.ir.layers import Layer


def contributing(layers: list[Layer], output: str) -> tuple[Layer, ...]:
    """The layers that `output` depends on."""
    needed = {output}
    kept: list[Layer] = []
    for layer in reversed(layers):
        if layer.output in needed:
            kept.append(layer)
            needed.update(layer.inputs)
    return tuple(reversed(kept))


def numbered(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers that drop something with their number among those: what they drop depends on it."""
    dropping = [layer.output for layer in layers if layer.attributes.get("dropout", 0.0) > 0.0]
    return tuple(
        replace(layer, attributes={**layer.attributes, "dropout_layer": dropping.index(layer.output)})
        if layer.output in dropping
        else layer
        for layer in layers
    )
