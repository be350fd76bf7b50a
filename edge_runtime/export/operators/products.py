"""Products of more than a multiplication: of all elements of a row, of two tensors by a third, and distances."""

from __future__ import annotations

import math
from collections.abc import Callable

from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import ADD, MULTIPLY, SUBTRACT, arithmetic, arithmetic_step

_MOST_FACTORS = 4096


def _capture_product(call: CapturedNode) -> Layer:
    """The products of one half of a dimension with the other, until there is one."""
    shape, given = call.shape("self"), call.arguments.get("dim")
    if given is None:
        raise NotCovered("over all dimensions")
    dim = given % len(shape)
    if call.over_examples("self", (dim,)) or shape[dim] > _MOST_FACTORS:
        raise NotCovered(f"over the batch, or of more than {_MOST_FACTORS} elements")
    x = call.activation("self")
    while shape[dim] > 1:
        half, odd = divmod(shape[dim], 2)
        first, second = (_part(call, x, shape, dim, start, half) for start in (0, half))
        smaller = (*shape[:dim], half, *shape[dim + 1 :])
        y = arithmetic_step(call, MULTIPLY, first, second, smaller)
        if odd:
            rest = _part(call, x, shape, dim, 2 * half, 1)
            smaller = (*shape[:dim], half + 1, *shape[dim + 1 :])
            y = call.step("cat", (y, rest), smaller, dim=dim)
        x, shape = y, smaller
    return call.layer("reshape", (x,))


def _part(call: CapturedNode, x: str, shape: tuple[int, ...], dim: int, start: int, length: int) -> str:
    offsets = tuple(start if d == dim else 0 for d in range(len(shape)))
    part = (*shape[:dim], length, *shape[dim + 1 :])
    return call.step("crop", (x,), part, offsets=offsets, cropped=part, value=0.0)


def _capture_bilinear(call: CapturedNode) -> Layer:
    """Of every pair of rows the sums of x1[i] weight[o, i, j] x2[j]: a product, then sums of a product."""
    first, second = call.shape("input1"), call.shape("input2")
    outputs, inner, width = call.shape("weight")
    rows, result = math.prod(first[:-1]), call.output_shape
    if len(first) < 2 or first[:-1] != second[:-1]:
        raise NotCovered("without a batch dimension")
    weight = call.step("permute", (call.activation("weight"),), (inner, outputs, width), dims=(1, 0, 2))
    weight = call.step("reshape", (weight,), (inner, outputs * width))
    x = call.step("reshape", (call.activation("input1"),), (rows, inner))
    x = call.step("matmul", (x, weight), (rows, outputs * width))
    whole = (*first[:-1], outputs, width)
    x = call.step("reshape", (x,), whole)
    y = call.step("reshape", (call.activation("input2"),), (*second[:-1], 1, width))
    x = arithmetic_step(call, MULTIPLY, x, y, whole)
    kept = (*result, 1)
    if call.arguments["bias"] is None:
        return call.layer("reduce", (x,), kept=kept, factor=1.0, over_first=False)
    x = call.step("reduce", (x,), result, kept=kept, factor=1.0, over_first=False)
    return arithmetic(call, ADD, x, call.activation("bias"))


def _capture_distances(call: CapturedNode) -> Layer:
    """`cdist`: Euclidean distances of all rows from all others."""
    if call.arguments["p"] != 2 or len(call.shape("x1")) != len(call.shape("x2")):
        raise NotCovered("of another order than 2")
    (*outer, count, width), others = call.shape("x1"), call.shape("x2")
    if tuple(outer) != others[:-2]:
        raise NotCovered("of batches that do not fit each other")
    result = call.output_shape
    a = call.step("reshape", (call.activation("x1"),), (*outer, count, 1, width))
    b = call.step("reshape", (call.activation("x2"),), (*outer, 1, others[-2], width))
    apart = arithmetic_step(call, SUBTRACT, a, b, (*result, width))
    squares = arithmetic_step(call, MULTIPLY, apart, apart, (*result, width))
    sums = call.step("reduce", (squares,), result, kept=(*result, 1), factor=1.0, over_first=False)
    return call.layer("activation", (sums,), activation="square_root", parameter=1.0)


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    "prod": _capture_product,
    "bilinear": _capture_bilinear,
    "cdist": _capture_distances,
}
EMITTERS: dict[str, Callable[..., object]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
