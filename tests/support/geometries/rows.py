"""Random normalisations along rows."""

from __future__ import annotations

import numpy as np
import torch

from tests.support.geometries.draw import Array, Call, Draw, Result, double, largest, near, perturbed
from tests.support.geometries.normalisation import EPS, inputs


def _rows(draw: Draw) -> tuple[tuple[int, ...], int]:
    """A shape, and how many dimensions of it each example has statistics for."""
    shape = draw.shape(2, 4, 6000)
    return shape, draw.whole(1, len(shape) - 1)


def layer_norm(draw: Draw) -> Call:
    """Forward over the last dimensions."""
    shape, leading = _rows(draw)
    inner = shape[leading:]
    x, weight, bias = inputs(draw, *shape), draw.maybe(*inner), draw.maybe(*inner)

    def reference(*tensors: torch.Tensor) -> list[torch.Tensor]:
        x, weight, bias = tensors
        y, mean, rstd = torch.native_layer_norm(x, inner, weight, bias, EPS)
        return [y, mean.reshape(shape[:leading]), rstd.reshape(shape[:leading])]

    found = perturbed(draw, reference, [x, weight, bias], rounds=32)
    # What is subtracted is a float32: with a tiny variance its rounding counts.
    _, rstd = _row_statistics(x, leading)
    size = largest(x) * largest(rstd) * (1 if weight is None else largest(weight))
    y = Result(found[0].expected, found[0].allowed + 4e-7 * size)
    return Call("layer_norm", [x, weight, bias, EPS], [y, *found[1:]])


def _row_statistics(x: Array, leading: int) -> tuple[Array, Array]:
    rows = x.astype(np.float64).reshape(*x.shape[:leading], -1)
    return rows.mean(-1).astype(np.float32), (1 / np.sqrt(rows.var(-1) + EPS)).astype(np.float32)


def layer_norm_apply(draw: Draw) -> Call:
    """Forward again, from the saved statistics."""
    shape, leading = _rows(draw)
    inner = shape[leading:]
    x, weight, bias = inputs(draw, *shape), draw.maybe(*inner), draw.maybe(*inner)
    mean, rstd = _row_statistics(x, leading)
    spread = (*shape[:leading], *[1] * len(inner))
    y = (double(x) - double(mean).reshape(spread)) * double(rstd).reshape(spread)
    y = y if weight is None else y * double(weight)
    y = y if bias is None else y + double(bias)
    size = largest(y) + 3
    return Call("layer_norm_apply", [x, weight, bias, mean, rstd], [near(y, size)])


def layer_norm_backward(draw: Draw) -> Call:
    """Any of the gradients, by the saved statistics."""
    shape, leading = _rows(draw)
    inner = shape[leading:]
    gradient, x, weight = draw.values(*shape), inputs(draw, *shape), draw.maybe(*inner)
    mean, rstd = _row_statistics(x, leading)
    spread = (*shape[:leading], *[1] * len(inner))
    ones = torch.ones(inner).double() if weight is None else double(weight)
    to_x, to_weight, to_bias = torch.ops.aten.native_layer_norm_backward(
        double(gradient), double(x), inner, double(mean).reshape(spread), double(rstd).reshape(spread), ones,
        torch.zeros(inner).double(), [True, True, True],
    )  # fmt: skip
    reach = 1 + float(((double(x) - double(mean).reshape(spread)) * double(rstd).reshape(spread)).abs().max()) ** 2
    size, rows = largest(gradient) * reach, int(np.prod(shape[:leading]))
    results: list[Result | None] = [
        near(to_x, largest(rstd) * largest(ones) * size),
        near(to_weight, size * rows),
        near(to_bias, largest(gradient) * rows),
    ]
    keep = draw.pick([(True, True, True), (True, False, False), (False, True, True), (True, True, False)])
    kept = [result if wanted else None for result, wanted in zip(results, keep, strict=True)]
    return Call("layer_norm_backward", [gradient, x, weight, mean, rstd], kept)


def softmax(draw: Draw) -> Call:
    """Over the last dimension."""
    x = draw.values(*draw.shape()) * np.float32(draw.pick([1, 10]))
    if x.shape[-1] > 1 and draw.chance(0.2):
        x[..., 0] = -np.inf
    return Call("softmax", [x], [near(double(x).softmax(-1), 1.0)])


def softmax_backward(draw: Draw) -> Call:
    """By the result."""
    shape = draw.shape()
    y = double(draw.values(*shape)).softmax(-1).numpy().astype(np.float32)
    gradient = draw.values(*shape)
    expected = torch.ops.aten._softmax_backward_data(double(gradient), double(y), -1, torch.float64)
    return Call("softmax_backward", [gradient, y], [near(expected, largest(gradient))])
