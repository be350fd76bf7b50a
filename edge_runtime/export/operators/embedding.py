"""Embedding: rows of a table by number."""

from __future__ import annotations

from edge_runtime.export.builder import Pairs, StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer, NotCovered


def _capture_embedding(call: CapturedNode) -> Layer:
    if call.arguments["scale_grad_by_freq"] or call.arguments["sparse"]:
        raise NotCovered("with scale_grad_by_freq or sparse gradients")
    padding = int(call.arguments["padding_idx"])
    return call.layer("embedding", (call.activation("indices"),), (call.tensor("weight"),), padding=padding)


def _embedding(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    table = builder.weight(layer.tensors[0])
    assert table is not None

    def compute(tokens: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("embedding", (tokens, table), (y,))
        return y

    tokens = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        to_table = builder.gradient_of(table)
        arguments = (gradient, builder.again(tokens), layer.attributes["padding"])
        builder.graph.emit("embedding_weight_grad", arguments, (to_table,))
        builder.update(table, to_table)
        return []

    return builder.record(builder.kept(layer.output, (tokens,), compute), rule)


CAPTURES = {"embedding": _capture_embedding}
EMITTERS = {"embedding": _embedding}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
