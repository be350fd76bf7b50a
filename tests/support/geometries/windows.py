"""Random poolings and resamplings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edge_runtime.export.operators.resample import LINEAR, LINEAR_CORNERS, NEAREST, NEAREST_EXACT, step
from tests.support.geometries.draw import Array, Call, Draw, double, exact, largest, leaf, near

_MODES: dict[int, dict[str, Any]] = {
    NEAREST: {"mode": "nearest"},
    NEAREST_EXACT: {"mode": "nearest-exact"},
    LINEAR: {"mode": "bilinear", "align_corners": False},
    LINEAR_CORNERS: {"mode": "bilinear", "align_corners": True},
}
Pool = Callable[[torch.Tensor], torch.Tensor]


def _images(draw: Draw) -> Array:
    """[N, C, H, W], rounded so that maxima are tied."""
    while True:
        shape = (draw.extent(4), draw.extent(9), draw.extent(30), draw.extent(30))
        if int(np.prod(shape)) <= 6000:
            return np.round(draw.values(*shape) * 2)


def _window(draw: Draw, x: Array, *, dilated: bool) -> tuple[list[Any], tuple[Any, ...], bool]:
    """Kernel, stride, padding and dilation, as lists and for PyTorch; and whether the last window may stick out."""
    kernel, stride, padding, dilation = [], [], [], []
    for extent in x.shape[2:]:
        d = draw.pick([1, 1, 1, 2, 3]) if dilated else 1
        k = draw.pick([1, 2, 2, 3, 3, 5])
        pad = draw.whole(0, k // 2)
        while (k - 1) * d + 1 > extent + 2 * pad:
            k, d, pad = (k, 1, pad) if d > 1 else (k - 1, 1, min(pad, (k - 1) // 2))
        kernel.append(k)
        padding.append(pad)
        dilation.append(d)
        stride.append(draw.whole(1, 4))
    return [kernel, stride, padding, dilation], (kernel, stride, padding, dilation), draw.chance(0.4)


def _adaptive(draw: Draw, x: Array) -> tuple[int, int]:
    rows, columns = (draw.whole(1, extent + 3) for extent in x.shape[2:])
    return rows, columns


_NO_WINDOW: list[list[int]] = [[0, 0], [1, 1], [0, 0]]


def _max_pool(draw: Draw) -> tuple[Array, list[Any], Pool]:
    x = _images(draw)
    if draw.chance(0.25):
        size = _adaptive(draw, x)
        return x, [*_NO_WINDOW, [1, 1], False], lambda t: functional.adaptive_max_pool2d(t, size)
    lists, (kernel, stride, padding, dilation), ceil = _window(draw, x, dilated=True)
    return x, [*lists, ceil], lambda t: functional.max_pool2d(t, kernel, stride, padding, dilation, ceil)


def _average_pool(draw: Draw) -> tuple[Array, list[Any], Pool]:
    x = _images(draw)
    if draw.chance(0.25):
        size = _adaptive(draw, x)
        return x, [*_NO_WINDOW, False, 0], lambda t: functional.adaptive_avg_pool2d(t, size)
    lists, (kernel, stride, padding, _), ceil = _window(draw, x, dilated=False)
    counted, divisor = draw.chance(0.5), draw.whole(1, 9) if draw.chance(0.2) else 0
    window = [*lists[:3], counted, divisor]
    return x, window, lambda t: functional.avg_pool2d(t, kernel, stride, padding, ceil, counted, divisor or None)


def _as_sequence(draw: Draw, *arrays: Array) -> list[Array]:
    """Images of height 1 are sequences now and then."""
    if all(a.shape[2] == 1 for a in arrays) and draw.chance(0.5):
        return [a.reshape(a.shape[0], a.shape[1], a.shape[3]) for a in arrays]
    return list(arrays)


def max_pool2d(draw: Draw) -> Call:
    """Over any windows."""
    x, window, pool = _max_pool(draw)
    of_x, y = _as_sequence(draw, x, pool(double(x)).numpy())
    return Call("max_pool2d", [of_x, *window], [exact(y)])


def average_pool2d(draw: Draw) -> Call:
    """The same."""
    x, window, pool = _average_pool(draw)
    of_x, y = _as_sequence(draw, x, pool(double(x)).numpy())
    return Call("average_pool2d", [of_x, *window], [near(torch.from_numpy(y), 9 * largest(x) + 1)])


def _backward(draw: Draw, operator: str, x: Array, window: list[Any], pool: Pool, *, reads: bool) -> Call:
    of_x, of_sizes = leaf(x), leaf(x)
    y = pool(of_x)
    gradient = draw.values(*y.shape)
    y.backward(double(gradient))
    pool(of_sizes).backward(double(abs(gradient)))
    assert of_x.grad is not None and of_sizes.grad is not None
    values, given, to_x, scale = _as_sequence(draw, x, gradient, of_x.grad.numpy(), of_sizes.grad.numpy())
    result = near(torch.from_numpy(to_x), scale)
    return Call(operator, [given, *([values] if reads else []), *window], [result])


def max_pool2d_backward(draw: Draw) -> Call:
    """The gradient goes where the first maximum was.

    A dilated window may step over every pixel. PyTorch then writes its gradient outside of the plane, where the kernel
    leaves it out: no reference.
    """
    while True:
        x, window, pool = _max_pool(draw)
        if torch.isfinite(pool(double(x))).all():
            return _backward(draw, "max_pool2d_backward", x, window, pool, reads=True)


def average_pool2d_backward(draw: Draw) -> Call:
    """The gradient is spread."""
    return _backward(draw, "average_pool2d_backward", *_average_pool(draw), reads=False)


def _planes(draw: Draw) -> tuple[int, ...]:
    while True:
        shape = (draw.extent(6), draw.extent(40), *(draw.extent(30) for _ in range(draw.whole(1, 2))))
        if int(np.prod(shape)) <= 6000:
            return shape


def global_average_pool(draw: Draw) -> Call:
    """Each plane's mean."""
    x = draw.values(*_planes(draw))
    means = double(x).mean(tuple(range(2, x.ndim)))
    return Call("global_average_pool", [x], [near(means, largest(x))])


def global_average_pool_backward(draw: Draw) -> Call:
    """Spread over each plane."""
    shape = _planes(draw)
    gradient = draw.values(*shape[:2])
    plane = int(np.prod(shape[2:]))
    spread = (double(gradient) / plane).reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
    return Call("global_average_pool_backward", [gradient], [near(spread, spread.abs(), 3e-7)])


def _resampled(draw: Draw) -> tuple[Array, int, tuple[int, int], list[float]]:
    x = draw.values(*_images(draw).shape)
    mode = draw.pick(list(_MODES))
    rows, columns = (draw.extent(40) if draw.chance(0.8) else extent for extent in x.shape[2:])
    size = (rows, columns)
    return x, mode, size, [step(mode, before, after) for before, after in zip(x.shape[2:], size, strict=True)]


def _interpolated(x: torch.Tensor, mode: int, size: tuple[int, int]) -> torch.Tensor:
    """Positions are float32's: in float64, one that falls between two pixels may take the other."""
    nearest = mode in (NEAREST, NEAREST_EXACT)
    values = x.float() if nearest else x
    resampled: torch.Tensor = functional.interpolate(values, size=size, **_MODES[mode])
    return resampled.double()


def _position_error(x: Array, size: tuple[int, int]) -> float:
    """Rounding of a position near the far end, as a share of the distance of two pixels."""
    return 4e-7 * max(*x.shape[2:], *size) + 1e-6


def resample2d(draw: Draw) -> Call:
    """Nearest values and linear interpolation, to any size."""
    x, mode, size, steps = _resampled(draw)
    expected = _interpolated(double(x), mode, size)
    of_x, y = _as_sequence(draw, x, expected.numpy())
    allowed = 0.0 if mode in (NEAREST, NEAREST_EXACT) else 4 * largest(x) * _position_error(x, size)
    return Call("resample2d", [of_x, mode, *steps], [near(torch.from_numpy(y), allowed, 1.0)])


def resample2d_backward(draw: Draw) -> Call:
    """The gradient of the same."""
    x, mode, size, steps = _resampled(draw)
    of_x, of_sizes = leaf(x), leaf(x)
    gradient = draw.values(*x.shape[:2], *size)
    _interpolated(of_x, mode, size).backward(double(gradient))
    _interpolated(of_sizes, mode, size).backward(double(abs(gradient)))
    assert of_x.grad is not None and of_sizes.grad is not None
    given, to_x = _as_sequence(draw, gradient, of_x.grad.numpy())
    # A pixel's neighbours come in with the error of their positions.
    allowed = 4 * (largest(of_sizes.grad) + 4 * largest(gradient)) * _position_error(x, size)
    return Call("resample2d_backward", [given, mode, *steps], [near(torch.from_numpy(to_x), allowed, 1.0)])
