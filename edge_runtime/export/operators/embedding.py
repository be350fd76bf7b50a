"""Embedding: rows of a table by number."""

from __future__ import annotations

import math
from typing import Any

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.formula import applied, operand
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import WHOLE_TYPES, CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.take import take_step
from edge_runtime.export.operators.view import strided_view

_X = operand(0)
_TOWARDS_ZERO = applied("choose", applied("greater", _X, 0.0), applied("floor", _X), -applied("floor", -_X))


def _capture_embedding(call: CapturedNode) -> Layer:
    if call.arguments["scale_grad_by_freq"] or call.arguments["sparse"]:
        raise NotCovered("with scale_grad_by_freq or sparse gradients")
    indices = call.constant("indices")
    if indices is not None:
        return _rows_at(call, indices)
    padding = int(call.arguments["padding_idx"])
    tokens = call.activation("indices")
    if tokens not in call.whole:
        tokens = call.step("to_whole", (tokens,), call.shape("indices"))
    return call.layer("embedding", (tokens,), (call.tensor("weight"),), padding=padding)


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


def _capture_bag(call: CapturedNode) -> Layer:
    """Sums, means or maxima of the embeddings of a row of tokens, of those that are no padding."""
    if call.index not in (None, 0):
        raise NotCovered("with more results than the embeddings")
    if call.arguments["scale_grad_by_freq"] or call.arguments["sparse"] or call.arguments.get("per_sample_weights"):
        raise NotCovered("with scale_grad_by_freq, sparse gradients or weights of its own for each token")
    tokens, width, mode = _bagged(call), call.shape("weight")[1], int(call.arguments["mode"])
    given = call.arguments.get("padding_idx")
    padding = -1 if given is None else int(given) % call.shape("weight")[0]
    rows, (bags, count) = (*tokens[1], width), tokens[1]
    x = call.step("embedding", (tokens[0],), rows, (call.tensor("weight"),), padding=padding)
    if mode == 2 and padding < 0:
        x = call.step("permute", (x,), (bags, width, count), dims=(0, 2, 1))
        return call.layer("reshape", (call.step("top", (x,), (bags, width, 1), shared=False),))
    if mode == 2:
        raise NotCovered("of maxima with padding")
    kept, factor = (bags, 1, width), 1.0 / count if mode == 1 else 1.0
    if padding < 0:
        return call.layer("reduce", (x,), kept=kept, factor=factor, over_first=False)
    number = call.step("to_float", (tokens[0],), tokens[1])
    hidden = call.step("arithmetic", (number, call.number("padding", padding)), tokens[1], **_EQUAL)
    seen = call.step("affine", (hidden,), tokens[1], factor=-1.0, offset=1.0)
    by_token = call.step("reshape", (seen,), (bags, count, 1))
    x = call.step("arithmetic", (x, by_token), rows, **_PRODUCT)
    if mode == 0:
        return call.layer("reduce", (x,), kept=kept, factor=1.0, over_first=False)
    x = call.step("reduce", (x,), (bags, width), kept=kept, factor=1.0, over_first=False)
    size = call.step("reduce", (seen,), (bags, 1), kept=(bags, 1), factor=1.0, over_first=False)
    size = call.step("activation", (size,), (bags, 1), activation="at_least", parameter=1.0)
    return call.layer("arithmetic", (x, size), **_QUOTIENT)


_PRODUCT: dict[str, Any]
_QUOTIENT: dict[str, Any]
_EQUAL: dict[str, Any]
_PRODUCT, _QUOTIENT, _EQUAL = ({"operation": operation, "of_model": (False, False)} for operation in (2, 3, 6))
"""Of `arithmetic` (see `elementwise.py`)."""


def _bagged(call: CapturedNode) -> tuple[str, tuple[int, int]]:
    """The tokens [bags, tokens of each], which PyTorch hands over as one row and the places where bags begin."""
    offsets, row = call.constant("offsets"), call.arguments["indices"]
    source = row.args[0] if row.op == "call_function" else row
    shape = tuple(source.meta["val"].shape)
    if len(shape) != 2 or offsets is None or not torch.equal(offsets, torch.arange(0, math.prod(shape), shape[1])):
        raise NotCovered("of bags that are no rows of one tensor")
    return call.activation_of(source, "indices"), (shape[0], shape[1])


def _capture_conversion(call: CapturedNode) -> Layer:
    """Of whole numbers: those that the model computes are numbers here already, as sums of truth values are."""
    x, kind, before = call.activation("self"), call.node.meta["val"].dtype, call.node_type("self")
    if kind == torch.float32 and before in WHOLE_TYPES:
        return call.layer("to_float" if x in call.whole else "reshape", (x,))
    if kind in WHOLE_TYPES and before == torch.float32:
        return call.layer("expression", (x,), formula=_TOWARDS_ZERO)
    raise NotCovered("it changes the element type; this runtime computes in float32")


def _to_whole(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """Of whole numbers in float32: no gradient goes through them."""

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape, dtype="int64")
        builder.graph.emit("to_whole", (x,), (y,))
        return y

    return builder.derived((values[layer.inputs[0]],), compute)


def _to_float(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """No gradient goes to whole numbers."""

    def compute(tokens: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("to_float", (tokens,), (y,))
        return y

    return builder.derived((values[layer.inputs[0]],), compute)


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


CAPTURES = {
    "embedding": _capture_embedding,
    "embedding_bag": _capture_bag,
    **dict.fromkeys(("to", "_to_copy"), _capture_conversion),
}
EMITTERS = {"embedding": _embedding, "to_float": _to_float, "to_whole": _to_whole}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
