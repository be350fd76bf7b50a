"""Scaled dot-product attention, and what attention is made of where a model writes it out: softmax and products.

Attention keeps its output and one number for each row of probabilities; the probabilities are computed again tile by
tile. Queries, keys and values may be views of one activation (see `views.py`), which then takes one gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.constants import Mask
from edge_runtime.export.ir.graph import Argument, Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.linear import of_turned_weight
from edge_runtime.export.operators.view import repeated

MAX_VALUE_WIDTH = 512
"""Widest head whose tile of results fits the kernels' workspace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StridedView:
    """[batch, heads, tokens, width] within an activation: an offset and strides in elements; the width is dense."""

    offset: int
    strides: tuple[int, int, int]

    @classmethod
    def dense(cls, shape: tuple[int, ...]) -> StridedView:
        """A whole activation of `shape` [batch, heads, tokens, width]."""
        _, heads, tokens, width = shape
        return cls(offset=0, strides=(heads * tokens * width, tokens * width, width))

    @property
    def argument(self) -> tuple[int, ...]:
        """As the kernels take it."""
        return (self.offset, *self.strides)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Operand:
    """A query, key or value as an activation [batch, heads, tokens, width]."""

    name: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, call: CapturedNode, argument: str) -> _Operand:
        """Without a dimension of heads it is one head; further dimensions are batches."""
        given, x = call.shape(argument), call.activation(argument)
        if len(given) < 3:
            raise NotCovered("without a batch dimension")
        shape = (given[0], 1, *given[1:]) if len(given) == 3 else (math.prod(given[:-3]), *given[-3:])
        return cls(name=x if shape == given else call.step("reshape", (x,), shape), shape=shape)

    def repeated(self, call: CapturedNode, batch: int, heads: int) -> _Operand:
        """For as many examples and heads, where it has one for all of them or for each group of heads."""
        own_batch, own_heads, tokens, width = self.shape
        if (own_batch, own_heads) == (batch, heads):
            return self
        if own_batch not in (1, batch) or heads % own_heads:
            raise NotCovered("of batches and heads that do not fit each other")
        wanted = (batch, own_heads, heads // own_heads, tokens, width)
        x, _ = repeated(call, self.name, self.shape, lambda t: t.unsqueeze(2).expand(wanted))
        shape = (batch, heads, tokens, width)
        return _Operand(name=call.step("reshape", (x,), shape), shape=shape)


def _capture_attention(call: CapturedNode) -> Layer:
    given = [_Operand.of(call, name) for name in ("query", "key", "value")]
    batch, heads = (max(operand.shape[d] for operand in given) for d in (0, 1))
    operands = [operand.repeated(call, batch, heads) for operand in given]
    query, key, value = (operand.shape for operand in operands)
    if value[3] > MAX_VALUE_WIDTH:
        raise NotCovered(f"heads wider than {MAX_VALUE_WIDTH}")
    scale = call.arguments["scale"]
    scale = 1.0 / math.sqrt(query[3]) if scale is None else float(scale)
    inputs, mask = tuple(operand.name for operand in operands), Mask()
    if call.arguments["attn_mask"] is not None:
        value_of_mask = call.constant("attn_mask")
        if value_of_mask is not None:
            mask = _constant_mask(call, value_of_mask, query[2], key[2])
        elif call.activation("attn_mask") not in call.steady:
            return _written_out(call, operands, scale)
        else:
            name, view = _computed_mask(call, key[2])
            inputs, mask = (*inputs, name), Mask(view=view)
    shape = (*query[:3], value[3])
    attributes = {
        "sizes": (query[0], query[1], query[2], key[2], query[3], value[3]),
        "views": tuple(StridedView.dense(operand.shape) for operand in operands),
        "sources": (0, 1, 2),
        "mask_view": mask.view,
        "out_view": StridedView.dense(shape),
        "scale": scale,
        "causal": bool(call.arguments["is_causal"]) or mask.causal,
        "dropout": float(call.arguments["dropout_p"]),
    }
    tensors = (None if mask.value is None else call.keep_constant("mask", mask.value),)
    if shape == call.output_shape:
        return call.layer("attention", inputs, tensors, **attributes)
    return call.layer("reshape", (call.step("attention", inputs, shape, tensors, **attributes),))


def _constant_mask(call: CapturedNode, value: torch.Tensor, queries: int, keys: int) -> Mask:
    """Of [batch, heads, queries, keys]; one without heads is for each example."""
    rank = len(call.shape("query"))
    if value.dim() > 4 or (rank != 4 and value.dim() == 4):
        raise NotCovered("with a mask of more than one dimension of batches")
    return Mask.of(value.unsqueeze(1) if rank == 3 and value.dim() == 3 else value, queries, keys)


def _computed_mask(call: CapturedNode, keys: int) -> tuple[str, tuple[int, int, int, int]]:
    """What is added to the scores, of what takes no gradient, such as padding; and where its rows begin."""
    x, shape = call.activation("attn_mask"), call.shape("attn_mask")
    if call.node_type("attn_mask") == torch.bool:  # 0 where a key is seen, minus infinity where it is not
        x = call.step("activation", (x,), shape, activation="logarithm", parameter=0.0)
    if len(call.shape("query")) == 3 and len(shape) == 3:
        shape = (shape[0], 1, *shape[1:])
    shape = (*(1,) * (4 - len(shape)), *shape)
    if len(shape) != 4 or shape[3] != keys or len(call.shape("query")) > 4:
        raise NotCovered("with a mask that is the same for all keys, or has more than one dimension of batches")
    rows = [math.prod(shape[d + 1 :]) if extent > 1 else 0 for d, extent in enumerate(shape[:3])]
    return x, (0, rows[0], rows[1], rows[2])


def _written_out(call: CapturedNode, operands: list[_Operand], scale: float) -> Layer:
    """Attention as products and a softmax, where what is added to the scores takes a gradient, as a table of relative
    positions does."""
    query, key, value = operands
    mask, given = call.activation("attn_mask"), call.shape("attn_mask")
    if call.node_type("attn_mask") != torch.float32 or call.arguments["is_causal"]:
        raise NotCovered("with truth values that are computed as its mask")
    if len(call.shape("query")) == 3 and len(given) == 3:
        mask = call.step("reshape", (mask,), (given[0], 1, *given[1:]))
    turned, scores = (*key.shape[:2], key.shape[3], key.shape[2]), (*query.shape[:3], key.shape[2])
    q = call.step("affine", (query.name,), query.shape, factor=scale, offset=0.0)
    k = call.step("permute", (key.name,), turned, dims=(0, 1, 3, 2))
    x = call.step("matmul", (q, k), scores)
    x = call.step("arithmetic", (x, mask), scores, operation=0, of_model=(False, False))
    x = call.step("softmax", (x,), scores)
    if float(call.arguments["dropout_p"]) > 0.0:
        x = call.step("dropout", (x,), scores, dropout=float(call.arguments["dropout_p"]))
    result = (*query.shape[:3], value.shape[3])
    if result == call.output_shape:
        return call.layer("matmul", (x, value.name))
    return call.layer("reshape", (call.step("matmul", (x, value.name), result),))


def _attention(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    attributes = layer.attributes
    computed_mask = len(layer.inputs) > max(attributes["sources"]) + 1  # the last input
    sources = tuple(values[name] for name in layer.inputs)
    fixed = None if layer.tensors[0] is None else builder.tensor(layer.tensors[0], "frozen")
    drops = builder.training and attributes["dropout"] > 0.0
    sizes = (layer.shape[0], *attributes["sizes"][1:])
    random = builder.random() if drops else None
    settings: tuple[Argument, ...] = (
        sizes,
        *(view.argument for view in attributes["views"]),
        attributes["mask_view"],
        attributes["out_view"].argument,
        attributes["scale"],
        attributes["causal"],
        attributes["dropout"] if drops else 0.0,
        attributes.get("dropout_layer", 0),
    )
    log_sums = builder.new(f"{layer.module}.log_sums", sizes[:3], "activation") if builder.differentiates else None
    again = False

    def compute(*sources: Value) -> Value:
        nonlocal again
        y = builder.new(layer.module, layer.shape)
        query, key, value = (sources[i] for i in attributes["sources"])
        mask = sources[-1] if computed_mask else fixed
        # A second time the logarithms are there already; None leaves them as they are.
        builder.graph.emit("attention", (query, key, value, mask, random, *settings), (y, None if again else log_sums))
        again = True
        return y

    y = builder.kept(layer.output, sources, compute)

    def rule(gradient: Value) -> Pairs:
        assert log_sums is not None
        found = tuple(builder.again(source) for source in sources)
        order, mask = attributes["sources"], found[-1] if computed_mask else fixed
        results = [builder.new(f"{layer.module}.input_gradient", x.shape) for x in sources[: max(order) + 1]]
        builder.graph.emit(
            "attention_backward",
            (gradient, *(found[i] for i in order), mask, random, builder.again(y), log_sums, *settings),
            tuple(results[i] for i in order),
        )
        return list(zip(sources, results, strict=False))  # a mask takes none

    return builder.record(y, rule)


def _capture_softmax(call: CapturedNode) -> Layer:
    shape = call.shape("self")
    dim = call.arguments["dim"] % len(shape)
    if dim == len(shape) - 1:
        return call.layer("softmax", (call.activation("self"),))
    if call.over_examples("self", (dim,)):
        raise NotCovered("over the batch dimension")
    # Over the last one of two dimensions that changed places.
    turn = list(range(len(shape)))
    turn[dim], turn[-1] = turn[-1], turn[dim]
    turned = tuple(shape[d] for d in turn)
    x = call.step("permute", (call.activation("self"),), turned, dims=tuple(turn))
    return call.layer("permute", (call.step("softmax", (x,), turned),), dims=tuple(turn))


def _softmax(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("softmax", (x,), (y,))
        return y

    x = values[layer.inputs[0]]
    y = builder.kept(layer.output, (x,), compute)

    def rule(gradient: Value) -> Pairs:
        result = builder.new(f"{layer.module}.input_gradient", layer.shape)
        builder.graph.emit("softmax_backward", (gradient, builder.again(y)), (result,))
        return [(x, result)]

    return builder.record(y, rule)


def _capture_matmul(call: CapturedNode) -> Layer:
    names = ("mat1", "mat2") if "mat1" in call.arguments else ("self", "mat2" if "mat2" in call.arguments else "other")
    left, right = (call.shape(name) for name in names)
    if len(left) == 2 and (layer := of_turned_weight(call, *names)) is not None:
        return layer
    if len(left) > 2 and len(right) == 2:
        x = call.step("reshape", (call.activation(names[0]),), (math.prod(left[:-1]), left[-1]))
        y = call.step("matmul", (x, call.activation(names[1])), (math.prod(left[:-1]), right[-1]))
        return call.layer("reshape", (y,))
    if len(left) < 2 or len(left) != len(right) or left[:-2] != right[:-2]:
        raise NotCovered("of shapes that are broadcast")
    return call.layer("matmul", tuple(call.activation(name) for name in names))


def _capture_sum_and_product(call: CapturedNode) -> Layer:
    """`addmm` and `baddbmm`: beta * self + alpha * a product."""
    names = ("mat1", "mat2") if call.operator == "addmm" else ("batch1", "batch2")
    shape, plain = call.output_shape, call.arguments["alpha"] == call.arguments["beta"] == 1
    if call.operator == "addmm" and plain and (layer := of_turned_weight(call, *names, "self")) is not None:
        return layer
    y = call.step("matmul", tuple(call.activation(name) for name in names), shape)
    x = call.activation("self")
    if call.arguments["alpha"] != 1:
        y = call.step("affine", (y,), shape, factor=float(call.arguments["alpha"]), offset=0.0)
    if call.arguments["beta"] != 1:
        x = call.step("affine", (x,), call.shape("self"), factor=float(call.arguments["beta"]), offset=0.0)
    return call.layer("arithmetic", (y, x), operation=0, of_model=(False, False))


def _matmul(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    def product(hint: str, a: Value, b: Value, shape: tuple[int, ...], *, turn_a: bool, turn_b: bool) -> Value:
        y = builder.new(hint, shape)
        builder.graph.emit("matmul", (a, b, turn_a, turn_b), (y,))
        return y

    a, b = (values[name] for name in layer.inputs)
    y = builder.kept(
        layer.output,
        (a, b),
        lambda a, b: product(layer.module, a, b, layer.shape, turn_a=False, turn_b=False),
    )

    def rule(gradient: Value) -> Pairs:
        pairs: Pairs = []
        hint = f"{layer.module}.input_gradient"
        if a in builder.differentiable:
            pairs.append((a, product(hint, gradient, builder.again(b), a.shape, turn_a=False, turn_b=True)))
        if b in builder.differentiable:
            pairs.append((b, product(hint, builder.again(a), gradient, b.shape, turn_a=True, turn_b=False)))
        return pairs

    return builder.record(y, rule)


CAPTURES = {
    "scaled_dot_product_attention": _capture_attention,
    **dict.fromkeys(("softmax", "_safe_softmax", "_softmax"), _capture_softmax),
    **dict.fromkeys(("matmul", "bmm", "mm"), _capture_matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _capture_sum_and_product),
}
EMITTERS = {"attention": _attention, "softmax": _softmax, "matmul": _matmul}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    "softmax": ((0, 0),),
    "softmax_backward": ((0, 0), (0, 1)),
}
