"""Random calls of what orders and sums up rows, and of whole numbers as floats."""

from __future__ import annotations

import numpy as np
import torch

from tests.support.geometries.draw import Array, Call, Draw, double, exact, near


def _row(draw: Draw) -> tuple[Array, int]:
    """Rows, with equal elements in half of all draws, and how many of them come first."""
    x = draw.values(draw.extent(30), draw.extent(60))
    if draw.chance(0.5):
        x = np.round(x)
    return x, draw.whole(1, x.shape[1]) if draw.chance(0.7) else 1


def _order(x: Array, count: int) -> Array:
    return np.argsort(-x, axis=1, kind="stable")[:, :count]


def top(draw: Draw) -> Call:
    """The largest, in order."""
    x, count = _row(draw)
    return Call("top", [x], [exact(np.take_along_axis(x, _order(x, count), 1))])


def top_backward(draw: Draw) -> Call:
    """To the first of equal ones, or to all of them alike."""
    x, count = _row(draw)
    gradient, shared = draw.values(len(x), count), draw.chance(0.5) and count == 1
    result = np.zeros(x.shape, np.float64)
    if shared:
        equal = x == x.max(1, keepdims=True)
        result = gradient * equal / equal.sum(1, keepdims=True)
    else:
        np.put_along_axis(result, _order(x, count), gradient.astype(np.float64), 1)
    return Call("top_backward", [gradient, x, shared], [near(torch.from_numpy(result), 1.0)])


def running_sum(draw: Draw) -> Call:
    """From the beginning or from the end."""
    x, backwards = draw.values(draw.extent(6), draw.extent(60), draw.pick((1, 3, 300))), draw.chance(0.5)
    whole = double(x)
    expected, size = ((t.flip(1).cumsum(1).flip(1) if backwards else t.cumsum(1)) for t in (whole, whole.abs()))
    return Call("running_sum", [x, backwards], [near(expected, size + 1e-9)])


def to_float(draw: Draw) -> Call:
    """Up to 2^24 to the bit."""
    tokens = draw.random.integers(-(1 << 24), 1 << 24, draw.shape(1, 3))
    return Call("to_float", [tokens], [exact(tokens.astype(np.float32))])


def to_whole(draw: Draw) -> Call:
    """Towards zero; what is no whole number that there is becomes -1."""
    x = (draw.values(*draw.shape(1, 3)) * draw.pick((1.0, 1000.0, 1e9))).astype(np.float32)
    x.reshape(-1)[0] = draw.pick((0.0, 1e30, -1e30, np.nan))
    known = np.abs(x) < 9e18
    return Call(
        "to_whole", [x], [exact(np.where(known, np.trunc(np.where(known, x, 0)).astype(np.int64), -1), np.int64)]
    )


def widen(draw: Draw) -> Call:
    """A bfloat16 as the float whose upper half it is."""
    half = (draw.values(*draw.shape(1, 3)).view(np.uint32) >> 16).astype(np.uint16)
    return Call("widen", [half], [exact((half.astype(np.uint32) << 16).view(np.float32))])
