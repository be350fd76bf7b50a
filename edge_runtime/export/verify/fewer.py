"""The captured model for fewer examples than it was captured with, without capturing it again."""

from __future__ import annotations

from dataclasses import replace

from edge_runtime.export.cut.units import UnitLayers
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.step.inference import by_example


def with_fewer(source: BlockModel, examples: int) -> BlockModel | None:
    """`source` with the first `examples` rows of every activation that has one for each; None where examples mix, so
    that rows cannot be left out."""
    parts = (*source.cut.units, source.cut.head)
    split = by_example([layer for unit in parts for layer in unit.layers], source.cut.input, source.batch)
    if split is None:
        return None
    shapes = {
        name: (examples, *shape[1:]) if name in split or name == source.cut.input else shape
        for name, shape in source.cut.shapes.items()
    }

    def shortened(unit: UnitLayers) -> UnitLayers:
        layers = (replace(la, shape=(examples, *la.shape[1:])) if la.output in split else la for la in unit.layers)
        return replace(unit, layers=tuple(layers))

    *units, head = map(shortened, parts)
    return replace(source, batch=examples, cut=replace(source.cut, units=tuple(units), head=head, shapes=shapes))
