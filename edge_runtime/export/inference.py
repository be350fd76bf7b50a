"""Layers in inference mode: the frozen prefix of a training step, and evaluations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edge_runtime.export.builder import StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import Layer
from edge_runtime.export.operators import emit_layer
from edge_runtime.export.operators.convolution import frozen_conv2d


def emit_frozen(builder: StepBuilder, layers: list[Layer], values: Values) -> Values:
    """Emit layers in inference mode; a convolution takes the BatchNorm behind it into its epilogue.

    Returns every activation by name, `values` included.
    """
    values = dict(values)
    readers = Counter(name for layer in layers for name in layer.inputs)
    norms = {layer.inputs[0]: layer for layer in layers if layer.kind == "batch_norm"}
    waiting: dict[str, Layer] = {}
    with builder.inference():
        for layer in layers:
            if layer.kind == "conv2d" and layer.output in norms and readers[layer.output] == 1:
                # The convolution runs where its BatchNorm stood, when the residual is there as well.
                waiting[layer.output] = layer
            elif layer.kind == "batch_norm" and layer.inputs[0] in waiting:
                values[layer.output] = frozen_conv2d(builder, waiting.pop(layer.inputs[0]), layer, values)
            elif layer.kind == "conv2d":
                values[layer.output] = frozen_conv2d(builder, layer, None, values)
            else:
                values[layer.output] = emit_layer(builder, layer, values)
    return values


def emit_prefix(
    builder: StepBuilder, layers: list[Layer], source: Value, *, input_name: str, output_name: str, rows: int
) -> Value:
    """Emit the frozen layers in front of a block, `rows` examples at a time; returns their output for the whole batch.

    Examples do not see each other in inference, so the result is the same, and the largest activations of the prefix
    exist for `rows` examples only.
    """
    batch = source.shape[0]
    if rows >= batch or not splits_by_example(layers, batch):
        return emit_frozen(builder, layers, {input_name: source})[output_name]
    (shape,) = (layer.shape for layer in layers if layer.output == output_name)
    whole = builder.new("prefix", shape)
    for first in range(0, batch, rows):
        count = min(rows, batch - first)
        part = [replace(layer, shape=(count, *layer.shape[1:])) for layer in layers]
        output = emit_frozen(builder, part, {input_name: source.rows(first, count)})[output_name].root
        output.storage, output.storage_offset = whole, first * (whole.bytes // batch)
    return whole


def splits_by_example(layers: list[Layer], batch: int) -> bool:
    """Whether the layers may run on some examples of the batch: the first dimension stays that of the examples."""
    return bool(layers) and layers[-1].kind != "reshape" and all(layer.shape[:1] == (batch,) for layer in layers)
