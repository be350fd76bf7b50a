"""Networks in which several tensors live wherever weights follow, such as two branches from the input on.

Where no single tensor lives before a head, those that do are laid side by side, a row for each example: the units hand
that row to the head, which takes it apart again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from edge_runtime.export.capture.capture import CapturedModel
from edge_runtime.export.capture.whose import Owners, keeps_rows
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.view import VIEW_KINDS

_NAME = "packed"
"""Of what lies side by side; no activation of PyTorch's has a dot in its name."""
_OF_WHOLE = ("embedding", "to_float")
"""Layers that read tokens."""


def packed_head(
    model: CapturedModel, alive: Sequence[Set[str]], owners: Mapping[str, Owners], weighted: Sequence[bool]
) -> tuple[CapturedModel, int] | None:
    """The model with a row of all that lives where the fewest elements do, and the first layer that takes it apart.

    `alive` are the activations before each layer, `weighted` says which layers have weights. None where there is no
    layer with weights before and behind which everything alive has a row for each example.
    """
    batch = model.input_shape[0]
    sizes = {
        place: sum(math.prod(model.shapes[name][1:]) for name in names)
        for place, names in enumerate(alive)
        if any(weighted[:place]) and any(weighted[place:]) and all(keeps_rows(owners[name], batch) for name in names)
    }
    if not sizes:
        return None
    place = min(sizes, key=lambda place: (sizes[place], -place))
    return _packed(model, place, sorted(alive[place]))


def _packed(model: CapturedModel, place: int, names: list[str]) -> tuple[CapturedModel, int]:
    layers, shapes = model.layers, dict(model.shapes)
    batch, module = model.input_shape[0], layers[place].module
    whole = _whole(model)
    before: list[Layer] = []
    behind: list[Layer] = []

    def add(to: list[Layer], kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], **how: object) -> str:
        output = f"{_NAME}.{len(before) + len(behind)}"
        to.append(Layer(kind=kind, inputs=inputs, output=output, shape=shape, module=module, attributes=how))
        shapes[output] = shape
        return output

    rows = []
    for name in names:
        x = add(before, "to_float", (name,), shapes[name]) if name in whole else name
        rows.append(add(before, "reshape", (x,), (batch, math.prod(shapes[name][1:]))))
    widths = [shapes[row][1] for row in rows]
    row = add(before, "cat", tuple(rows), (batch, sum(widths)), dim=1)
    renamed = {}
    for number, (name, width) in enumerate(zip(names, widths, strict=True)):
        cropped = (batch, width)
        x = add(behind, "crop", (row,), cropped, offsets=(0, sum(widths[:number])), cropped=cropped, value=0.0)
        x = add(behind, "reshape", (x,), shapes[name])
        renamed[name] = add(behind, "to_whole", (x,), shapes[name]) if name in whole else x
    rest = [replace(layer, inputs=tuple(renamed.get(name, name) for name in layer.inputs)) for layer in layers[place:]]
    changed = replace(model, layers=(*layers[:place], *before, *behind, *rest), shapes=shapes)
    return changed, place + len(before)


def _whole(model: CapturedModel) -> frozenset[str]:
    """Activations that are int64 in a program: tokens, and what only shows them otherwise."""
    read: set[str] = set()
    for layer in reversed(model.layers):
        if layer.kind in _OF_WHOLE or (layer.kind in VIEW_KINDS and layer.output in read):
            read.update(layer.inputs)
    found = {model.input_name} & read
    for layer in model.layers:
        if layer.kind == "to_whole" or (layer.kind in VIEW_KINDS and found.issuperset(layer.inputs)):
            found.add(layer.output)
    return frozenset(found)
