"""Layers in inference mode: the frozen prefix of a training step, and evaluations."""

from __future__ import annotations

from collections import Counter

from edge_runtime.export.builder import StepBuilder, Values
from edge_runtime.export.layers import Layer
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
