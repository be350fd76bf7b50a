"""Random convolutions, forward, backward, updating and frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.support.geometries.activations import PLAIN, drawn
from tests.support.geometries.draw import Array, Call, Draw, double, leaf, near, optional
from tests.support.geometries.training import update

Pair = tuple[int, int]

DIRECT, WINOGRAD = 1e-6, 4e-6
"""Shares of the sum of all terms' absolute values; Winograd's transforms lose more digits."""
_MOST_PRODUCTS = 2_500_000
_FEWEST_WINOGRAD = 16


@dataclass(frozen=True)
class Geometry:
    """A convolution. `more` is what is padded on the far side beyond the padding of the near one."""

    batch: int
    inputs: int
    outputs: int
    groups: int
    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    more: Pair
    sequence: bool

    @property
    def out(self) -> Pair:
        """Size of the output."""
        rows, columns = (
            (n + 2 * p + m - d * (k - 1) - 1) // s + 1
            for n, p, m, d, k, s in zip(
                self.size, self.padding, self.more, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def products(self) -> int:
        """Multiplications of a pass."""
        taps = self.kernel[0] * self.kernel[1]
        return self.batch * self.outputs * self.inputs // self.groups * taps * self.out[0] * self.out[1]

    @property
    def tolerance(self) -> float:
        """Of a sum."""
        wide = min(self.inputs, self.outputs) // self.groups >= _FEWEST_WINOGRAD
        return WINOGRAD if wide else DIRECT

    @property
    def stack(self) -> list[Any]:
        """As kernels take it."""
        return [list(self.stride), list(self.padding), list(self.dilation), self.groups]

    def shape(self, channels: int, size: Pair) -> tuple[int, ...]:
        """Of an image, or of a sequence."""
        return (self.batch, channels, size[1]) if self.sequence else (self.batch, channels, *size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return (self.outputs, self.inputs // self.groups, *(self.kernel[1:] if self.sequence else self.kernel))

    def compute(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """PyTorch's result, as images."""
        images = x.reshape(self.batch, self.inputs, *self.size)
        near_h, near_w = self.padding
        padded = functional.pad(images, (near_w, near_w + self.more[1], near_h, near_h + self.more[0]))
        kernels = weight.reshape(self.outputs, self.inputs // self.groups, *self.kernel)
        return functional.conv2d(padded, kernels, None, self.stride, 0, self.dilation, self.groups)

    def gradients(self, gradient: Array, x: Array, weight: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Of x and of the weight."""
        dx, dw = leaf(x), leaf(weight)
        y = self.compute(dx, dw)
        y.backward(double(gradient).reshape(y.shape))
        assert dx.grad is not None and dw.grad is not None
        return dx.grad, dw.grad


def geometry(draw: Draw) -> Geometry:
    """Any geometry, more often of the kinds that have ways of their own."""
    while True:
        found = draw.pick([_any, _pointwise, _depthwise, _wide, _wide, _wide])(draw)
        if draw.chance(0.1):
            found = _long(draw, found)
        if draw.chance(0.2):
            axis = draw.whole(0, 1)
            found = _degenerate(draw, found, axis)
        if draw.chance(0.15):
            found = replace(_degenerate(draw, found, 0, flat=True), sequence=True)
        if min(found.out) > 0 and found.products <= _MOST_PRODUCTS:
            return found


def _any(draw: Draw) -> Geometry:
    groups = draw.pick([1, 1, 1, 2, 3, 5])
    kernel = _pair(draw, [1, 1, 2, 3, 3, 4, 5, 7])
    return _sized(draw, groups * draw.extent(20), groups * draw.extent(40), groups, kernel)


def _pointwise(draw: Draw) -> Geometry:
    groups = draw.pick([1, 1, 1, 2, 4])
    found = _sized(draw, groups * draw.extent(40), groups * draw.extent(40), groups, (1, 1))
    return replace(found, padding=(0, 0), more=(0, 0)) if draw.chance(0.8) else found


def _depthwise(draw: Draw) -> Geometry:
    groups, each = draw.extent(40) + draw.pick([0, 1, 16]), draw.pick([1, 1, 1, 2, 3])
    return _sized(draw, groups, groups * each, groups, _pair(draw, [1, 2, 3, 3, 5, 7]))


def _wide(draw: Draw) -> Geometry:
    """Of so many channels that 3x3 kernels take Winograd's transforms."""
    groups = draw.pick([1, 1, 1, 2])
    inputs, outputs = (draw.pick([15, 16, 17, 24, 33, 64, 65, 70]) for _ in range(2))
    found = _sized(draw, groups * inputs, groups * outputs, groups, (3, 3), most=9)
    square = draw.pick([(1, 1), (2, 2)])
    if draw.chance(0.8):
        found = replace(found, stride=square, dilation=(1, 1))
    return replace(found, padding=(1, 1), more=(0, 0)) if draw.chance(0.6) else found


def _sized(draw: Draw, inputs: int, outputs: int, groups: int, kernel: Pair, most: int = 24) -> Geometry:
    dilation = _pair(draw, [1, 1, 1, 2, 3])
    padding = tuple(draw.pick([0, 0, 1, (k - 1) * d // 2, k * d]) for k, d in zip(kernel, dilation, strict=True))
    more = tuple(draw.pick([0, 0, 0, 1, 2]) for _ in kernel)
    size = tuple(
        max(1, (k - 1) * d + 1 - 2 * p - m) + draw.extent(most) - 1
        for k, d, p, m in zip(kernel, dilation, padding, more, strict=True)
    )
    stride = _pair(draw, [1, 1, 1, 2, 2, 3, 4])
    return Geometry(
        draw.extent(5), inputs, outputs, groups, _two(size), kernel, stride, _two(padding), dilation, _two(more), False
    )


def _long(draw: Draw, found: Geometry) -> Geometry:
    """Planes that are cut into pieces along their rows, their columns or both."""
    channels = max(1, min(found.inputs // found.groups, 17))
    rows, columns = draw.pick([(1, 1400), (3, 600), (700, 2), (300, 3), (40, 70), (2, 260)])
    size = (draw.whole(max(1, rows // 2), rows), draw.whole(max(1, columns // 2), columns))
    padding = (max(0, -(size[0] - found.kernel[0] * found.dilation[0]) // 2), found.padding[1])
    return replace(
        found,
        batch=draw.whole(1, 2),
        inputs=found.groups * channels,
        size=size,
        padding=(max(found.padding[0], padding[0]), padding[1]),
    )


def _pair(draw: Draw, choices: list[int]) -> Pair:
    first = draw.pick(choices)
    return (first, draw.pick(choices)) if draw.chance(0.4) else (first, first)


def _two(numbers: tuple[int, ...]) -> Pair:
    first, second = numbers
    return first, second


def _degenerate(draw: Draw, found: Geometry, axis: int, *, flat: bool = False) -> Geometry:
    """One row or column only, whose stride is then free; `flat`: as a sequence has it."""

    def at(pair: Pair, value: int) -> Pair:
        return (value, pair[1]) if axis == 0 else (pair[0], value)

    return replace(
        found,
        size=at(found.size, 1),
        kernel=at(found.kernel, 1),
        padding=at(found.padding, 0),
        dilation=at(found.dilation, 1),
        more=at(found.more, 0),
        stride=at(found.stride, 1 if flat else draw.whole(1, 4)),
    )


def _drawn(draw: Draw, g: Geometry) -> tuple[Array, Array, Array]:
    """Input, weight and gradient of the output."""
    return (
        draw.values(*g.shape(g.inputs, g.size)),
        draw.values(*g.weight_shape),
        draw.values(*g.shape(g.outputs, g.out)),
    )


def conv2d(draw: Draw) -> Call:
    """Forward."""
    g = geometry(draw)
    x, weight, y = _drawn(draw, g)
    bias = draw.maybe(g.outputs)
    shift = torch.zeros(g.outputs).double() if bias is None else double(bias)
    expected = g.compute(double(x), double(weight)) + shift[:, None, None]
    scale = g.compute(double(abs(x)), double(abs(weight))) + shift.abs()[:, None, None]
    result = near(expected.reshape(y.shape), float(scale.max()), g.tolerance)
    return Call("conv2d", [x, weight, bias, *g.stack], [result])


def conv2d_input_grad(draw: Draw) -> Call:
    """The gradient of the input, alone or added to something."""
    g = geometry(draw)
    x, weight, gradient = _drawn(draw, g)
    added = draw.maybe(*x.shape, probability=0.3)
    expected, _ = g.gradients(gradient, x, weight)
    scale, _ = g.gradients(abs(gradient), x, abs(weight))
    if added is not None:
        expected, scale = expected + double(added), scale + double(abs(added))
    # The transforms' errors are a share of a whole tile's values, and where the kernel reaches little this is little.
    result = near(expected, float(scale.max()), g.tolerance)
    return Call("conv2d_input_grad", [gradient, weight, added, *g.stack], [result])


def conv2d_weight_grad(draw: Draw) -> Call:
    """The gradient of the weight."""
    g = geometry(draw)
    x, weight, gradient = _drawn(draw, g)
    _, expected = g.gradients(gradient, x, weight)
    _, scale = g.gradients(abs(gradient), abs(x), weight)
    return Call("conv2d_weight_grad", [gradient, x, *g.stack], [near(expected, float(scale.max()), g.tolerance)])


def conv2d_weight_grad_sgd(draw: Draw) -> Call:
    """The same straight into an update."""
    g = geometry(draw)
    x, weight, gradient = _drawn(draw, g)
    _, expected = g.gradients(gradient, x, weight)
    _, scale = g.gradients(abs(gradient), abs(x), weight)
    step = update(draw, weight, expected, g.tolerance * float(scale.max()))
    return Call("conv2d_weight_grad_sgd", [gradient, x, *g.stack, weight, *step.arguments], step.results)


def conv2d_frozen(draw: Draw) -> Call:
    """A convolution, BatchNorm, a residual and an activation in one."""
    g = geometry(draw)
    x, weight, y = _drawn(draw, g)
    bias, residual = draw.maybe(g.outputs), draw.maybe(*y.shape, probability=0.4)
    statistics: list[Array | None] = [None] * 4
    if draw.chance(0.7):
        variance = np.abs(draw.values(g.outputs)) + np.float32(0.05)
        statistics = [draw.maybe(g.outputs), draw.maybe(g.outputs), draw.values(g.outputs), variance]
    gamma, beta, mean, var = map(optional, statistics)
    channels = torch.zeros(g.outputs).double()
    factor = channels + 1 if var is None else (channels + 1 if gamma is None else gamma) / (var + 1e-5).sqrt()
    shift = channels if bias is None else double(bias)
    if mean is not None:
        shift = (shift - mean) * factor + (channels if beta is None else beta)
    product = g.compute(double(x), double(weight)) * factor[:, None, None] + shift[:, None, None]
    size = g.compute(double(abs(x)), double(abs(weight))) * factor.abs()[:, None, None] + shift.abs()[:, None, None]
    if residual is not None:
        product, size = product + double(residual).reshape(product.shape), size + np.abs(residual).max()
    name, number = drawn(draw, PLAIN)
    expected = PLAIN[name](product, 0.0).reshape(y.shape)
    # No activation is steeper than 1.5.
    result = near(expected, 1.5 * float(size.max()) + 1.0, g.tolerance)
    epilogue = [bias, *statistics, 1e-5, residual, number]
    return Call("conv2d_frozen", [x, weight, *epilogue, *g.stack], [result])
