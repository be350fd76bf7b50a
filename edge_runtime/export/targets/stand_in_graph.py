"""Stand-ins as ATen operators, for PyTorch's own graph of a block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from edge_runtime.export.cut.missing import StandIn
from edge_runtime.export.ir.layers import Layer

_aten = torch.ops.aten


def append_stand_in(graph: fx.Graph, stand_in: StandIn, x: fx.Node) -> fx.Node:
    """Append the layers of a stand-in, which starts from `x`; returns what it leaves."""
    weight = graph.get_attr(stand_in.name)
    known = {stand_in.layers[0].inputs[0]: x}
    shapes = {stand_in.layers[0].inputs[0]: stand_in.before}
    for layer in stand_in.layers:
        arguments = [known[name] for name in layer.inputs]
        if layer.kind == "linear":
            x = graph.call_function(_aten.linear.default, (arguments[0], weight))
        elif layer.kind == "conv2d":
            x = _convolution(graph, layer, arguments[0], weight, len(stand_in.weight_shape) - 2)
        elif layer.kind == "cat":
            x = graph.call_function(_aten.cat.default, (arguments, layer.attributes["dim"]))
        else:
            x = _RULES[layer.kind](graph, layer, arguments[0], shapes[layer.inputs[0]])
        known[layer.output], shapes[layer.output] = x, layer.shape
    return x


Shape = tuple[int, ...]


def _convolution(graph: fx.Graph, layer: Layer, x: fx.Node, weight: fx.Node, directions: int) -> fx.Node:
    convolve = _aten.conv1d.default if directions == 1 else _aten.conv2d.default
    stride, padding = (list(layer.attributes[name][-directions:]) for name in ("stride", "padding"))
    return graph.call_function(convolve, (x, weight, None, stride, padding))


def _crop(graph: fx.Graph, layer: Layer, x: fx.Node, before: Shape) -> fx.Node:
    edges = zip(layer.attributes["offsets"], layer.shape, before, strict=True)
    pads = [(-offset, offset + after - extent) for offset, after, extent in edges]
    flat = [value for pair in reversed(pads[1:]) for value in pair]
    return graph.call_function(_aten.constant_pad_nd.default, (x, flat))


def _enlarge(graph: fx.Graph, layer: Layer, x: fx.Node, before: Shape) -> fx.Node:
    """To the nearest neighbours."""
    enlarge = _aten.upsample_nearest1d.vec if len(before) == 3 else _aten.upsample_nearest2d.vec
    return graph.call_function(enlarge, (x, list(layer.shape[2:]), None))


def _mean(graph: fx.Graph, layer: Layer, x: fx.Node, before: Shape) -> fx.Node:
    pairs = enumerate(zip(before, layer.attributes["kept"], strict=True))
    dims = [d for d, (extent, kept) in pairs if extent != kept]
    x = graph.call_function(_aten.mean.dim, (x, dims, True)) if dims else x
    return _reshape(graph, layer, x, before)


def _permute(graph: fx.Graph, layer: Layer, x: fx.Node, _before: Shape) -> fx.Node:
    return graph.call_function(_aten.permute.default, (x, list(layer.attributes["dims"])))


def _pool(graph: fx.Graph, layer: Layer, x: fx.Node, _before: Shape) -> fx.Node:
    return graph.call_function(_aten.adaptive_avg_pool2d.default, (x, list(layer.shape[2:])))


def _reshape(graph: fx.Graph, layer: Layer, x: fx.Node, _before: Shape) -> fx.Node:
    return graph.call_function(_aten.reshape.default, (x, [-1, *layer.shape[1:]]))


def _mean_of_all(graph: fx.Graph, _layer: Layer, x: fx.Node, before: Shape) -> fx.Node:
    return graph.call_function(_aten.mean.dim, (x, list(range(2, len(before)))))


_RULES: dict[str, Callable[[fx.Graph, Layer, fx.Node, Shape], fx.Node]] = {
    "average_pool2d": _pool,
    "crop": _crop,
    "global_average_pool": _mean_of_all,
    "permute": _permute,
    "reduce": _mean,
    "resample2d": _enlarge,
    "reshape": _reshape,
}
