"""Layers in inference mode: the frozen prefix of a training step, and evaluations."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Value
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators import emit_layer
from edge_runtime.export.operators.activation import FUSED
from edge_runtime.export.operators.convolution import frozen_conv2d


def emit_frozen(builder: StepBuilder, layers: list[Layer], values: Values) -> Values:
    """Emit layers in inference mode; a convolution takes the BatchNorm or activation behind it into its epilogue.

    Returns every activation by name, `values` included.
    """
    values = dict(values)
    readers = Counter(name for layer in layers for name in layer.inputs)
    behind = {layer.inputs[0]: layer for layer in layers if _joins_convolution(layer)}
    waiting: dict[str, Layer] = {}
    with builder.inference():
        for layer in layers:
            if layer.kind == "conv2d" and layer.output in behind and readers[layer.output] == 1:
                # The convolution runs where what it takes over stood, when a residual is there as well.
                waiting[layer.output] = layer
            elif layer.inputs and layer.inputs[0] in waiting:
                values[layer.output] = frozen_conv2d(builder, waiting.pop(layer.inputs[0]), layer, values)
            elif layer.kind == "conv2d":
                values[layer.output] = frozen_conv2d(builder, layer, None, values)
            else:
                values[layer.output] = emit_layer(builder, layer, values)
    return values


def _joins_convolution(layer: Layer) -> bool:
    return layer.kind == "batch_norm" or (layer.kind == "activation" and layer.attributes["activation"] in FUSED)


def emit_prefix(
    builder: StepBuilder, layers: list[Layer], source: Value, *, input_name: str, output_name: str, rows: int
) -> Value:
    """Emit the frozen layers in front of a block, `rows` examples at a time; returns their output for the whole batch.

    Examples do not see each other in inference, so the result is the same, and the largest activations of the prefix
    exist for `rows` examples only.
    """
    batch = source.shape[0]
    split = by_example(layers, input_name, batch)
    if rows >= batch or split is None or layers[-1].kind == "reshape":
        return emit_frozen(builder, layers, {input_name: source})[output_name]
    (shape,) = (layer.shape for layer in layers if layer.output == output_name)
    whole = builder.new("prefix", shape)
    for first in range(0, batch, rows):
        count = min(rows, batch - first)
        part = [replace(la, shape=(count, *la.shape[1:])) if la.output in split else la for la in layers]
        output = emit_frozen(builder, part, {input_name: source.rows(first, count)})[output_name].root
        output.storage, output.storage_offset = whole, first * (whole.bytes // batch)
    return whole


def by_example(layers: list[Layer], input_name: str, batch: int) -> frozenset[str] | None:
    """Outputs whose first dimension is that of the examples, so that some examples of the batch can be run alone.

    Those that do not follow from the input, such as a table of positions, stay as they are. None where examples mix.
    """
    split, of_all = {input_name}, set[str]()
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        shapes[layer.output] = layer.shape
        if not split.isdisjoint(layer.inputs):
            if any(name in of_all and len(shapes[name]) == len(layer.shape) for name in layer.inputs):
                return None
            if layer.shape[:1] != (batch,) or not _keeps_examples(layer, shapes):
                return None
            split.add(layer.output)
        elif layer.kind == "tensor":
            # With a row for each example, perhaps: its rows would have to be taken apart as well.
            of_all |= {layer.output} if layer.shape[:1] == (batch,) and batch > 1 else set()
        elif layer.shape[:1] == (batch,):
            if layer.kind != "view" or layer.attributes["strides"][0] != 0:
                return None
            split.add(layer.output)
    return frozenset(split - {input_name}) if layers else None


def _keeps_examples(layer: Layer, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a layer whose output has as many rows as there are examples has one for each of them."""
    if layer.kind == "permute":
        return bool(layer.attributes["dims"][0] == 0)
    if layer.kind == "view":
        return bool(layer.attributes["by_example"])
    if layer.kind == "take":
        return bool(layer.attributes["dims"][0] > 0)
    if layer.kind == "attention":
        views = [(layer.attributes["views"][i], layer.inputs[source]) for i, source in enumerate(_sources(layer))]
        return all(
            name not in shapes or view.strides[0] == math.prod(shapes[name][1:]) or layer.shape[0] == 1
            for view, name in views
        )
    return True


def _sources(layer: Layer) -> tuple[int, ...]:
    return tuple(layer.attributes["sources"])
