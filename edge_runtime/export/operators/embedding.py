"""Embedding: rows of a table by number."""

from __future__ import annotations

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.take import take_step
from edge_runtime.export.operators.view import strided_view


def _capture_embedding(call: CapturedNode) -> Layer:
    if call.arguments["scale_grad_by_freq"] or call.arguments["sparse"]:
        raise NotCovered("with scale_grad_by_freq or sparse gradients")
    indices = call.constant("indices")
    if indices is not None:
        return _rows_at(call, indices)
    padding = int(call.arguments["padding_idx"])
    return call.layer("embedding", (call.activation("indices"),), (call.tensor("weight"),), padding=padding)


def _rows_at(call: CapturedNode, indices: torch.Tensor) -> Layer:
    """Rows of a parameter at constant places: a view of it where they are evenly spaced, such as all positions."""
    if call.arguments["padding_idx"] >= 0:
        raise NotCovered("of constants with a padding_idx")
    first = int(indices.flatten()[0])
    steps = [int(indices.select(d, 1).flatten()[0]) - first if n > 1 else 0 for d, n in enumerate(indices.shape)]
    expected = torch.full_like(indices, first)
    for d, (step, extent) in enumerate(zip(steps, indices.shape, strict=True)):
        shape = [extent if d == other else 1 for other in range(indices.dim())]
        expected = expected + step * torch.arange(extent).view(shape)
    if min(steps, default=0) < 0 or not torch.equal(indices, expected):
        x, _ = take_step(call, call.activation("weight"), call.shape("weight"), (0, 0), indices)
        return call.layer("reshape", (x,))
    width = call.shape("weight")[1]
    sizes, strides = (*indices.shape, width), (*(step * width for step in steps), 1)
    return strided_view(call, "weight", sizes, strides, first * width)


def _embedding(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    table = builder.weight(layer.tensors[0])
    assert table is not None

    def compute(tokens: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("embedding", (tokens, table), (y,))
        return y

    tokens = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        if not builder.trains(table):
            return []
        to_table = builder.gradient_of(table)
        arguments = (gradient, builder.again(tokens), layer.attributes["padding"])
        builder.graph.emit("embedding_weight_grad", arguments, (to_table,))
        builder.update(table, to_table)
        return []

    return builder.record(builder.kept(layer.output, (tokens,), compute), rule)


CAPTURES = {"embedding": _capture_embedding}
EMITTERS = {"embedding": _embedding}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
