"""Random normalisations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from tests.support.geometries.activations import PLAIN, drawn, near_a_kink
from tests.support.geometries.draw import Array, Call, Draw, Result, double, largest, near, optional, perturbed

EPS = 1e-5
_TRIES = 50


def _channels(draw: Draw) -> tuple[int, ...]:
    """[N, C, rest...]"""
    while True:
        shape = (draw.extent(6), draw.extent(40), *(draw.extent(20) for _ in range(draw.whole(0, 2))))
        if int(np.prod(shape)) <= 6000:
            return shape if not draw.chance(0.02) else (2, 3, 4100)


def inputs(draw: Draw, *shape: int) -> Array:
    """Values around zero, or away from it where there are enough for a mean."""
    away = draw.chance(0.4)
    return draw.values(*shape) * np.float32(3 if away else 1) + np.float32(5 if away else 0)


def _statistics(x: Array) -> tuple[Array, Array]:
    """Mean and 1 / standard deviation of each channel, as the forward pass keeps them."""
    dims = (0, *range(2, x.ndim))
    values = x.astype(np.float64)
    return (
        values.mean(dims).astype(np.float32),
        (1 / np.sqrt(values.var(dims) + EPS)).astype(np.float32),
    )


def _spread(values: torch.Tensor | None, rank: int) -> torch.Tensor | None:
    return None if values is None else values.reshape(-1, *[1] * (rank - 2))


def _affine(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    rstd: torch.Tensor,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """What the activation behind a BatchNorm sees."""
    rank = x.dim()
    scale = _spread(rstd if weight is None else rstd * weight, rank)
    y = (x if mean is None else x - _spread(mean, rank)) * scale
    y = y if bias is None else y + _spread(bias, rank)
    return y if residual is None else y + residual


def batch_norm_train(draw: Draw) -> Call:
    """Forward by the batch's own statistics."""
    shape = _channels(draw)
    x, weight, bias = inputs(draw, *shape), draw.maybe(shape[1]), draw.maybe(shape[1])
    old_mean, old_variance = draw.values(shape[1]), np.abs(draw.values(shape[1]))
    residual, momentum = draw.maybe(*shape, probability=0.4), draw.number(0, 1)
    name, number = drawn(draw, PLAIN)
    values = int(np.prod(shape)) // shape[1]

    def reference(*tensors: torch.Tensor) -> list[torch.Tensor]:
        x, weight, bias, mean, variance, residual = tensors
        if values > 1:
            mean, variance = mean.clone(), variance.clone()
            y = functional.batch_norm(x, mean, variance, weight, bias, True, momentum, EPS)
        else:  # PyTorch refuses to normalise one value
            mean = mean * (1 - momentum) + momentum * x.reshape(-1)
            variance = variance * (1 - momentum)
            y = x * 0 + (0 if bias is None else _spread(bias, x.dim()))
        y = PLAIN[name](y if residual is None else y + residual, 0.0)
        dims = [0, *range(2, x.dim())]
        rstd = 1 / (x.var(dims, correction=0) + EPS).sqrt()
        return [y, x.mean(dims), rstd, mean, variance]

    results: list[Result | None] = [
        *perturbed(draw, reference, [x, weight, bias, old_mean, old_variance, residual], rounds=32)
    ]
    first = results[0]
    assert first is not None
    # x * scale + shift: with a tiny variance both are large.
    _, rstd = _statistics(x)
    size = largest(x) * float(rstd.max()) * (1 if weight is None else largest(weight))
    results[0] = Result(first.expected, first.allowed + 4e-7 * size)
    arguments = [x, weight, bias, old_mean, old_variance, momentum, EPS, residual, number]
    return Call("batch_norm_train", arguments, results)


def _applied(draw: Draw, operator: str, *, saved: bool) -> Call:
    """A BatchNorm of given statistics."""
    shape = _channels(draw)
    x, weight, bias = inputs(draw, *shape), draw.maybe(shape[1]), draw.maybe(shape[1])
    mean, variance = draw.values(shape[1]), np.abs(draw.values(shape[1])) + np.float32(0.01)
    shown = mean if saved or draw.chance(0.9) else None
    residual = draw.maybe(*shape, probability=0.4)
    name, number = drawn(draw, PLAIN)
    rstd = (1 / np.sqrt(variance.astype(np.float64) + EPS)).astype(np.float32)
    spread = double(rstd) if saved else 1 / (double(variance) + EPS).sqrt()
    y = _affine(double(x), optional(weight), optional(bias), optional(shown), spread, optional(residual))
    size = (largest(x) + 4) * largest(rstd) * (1 + largest(draw.values(0) if weight is None else weight)) + 8
    statistics = [mean, rstd] if saved else [shown, variance, EPS]
    result = near(PLAIN[name](y, 0.0), size)
    return Call(operator, [x, weight, bias, *statistics, residual, number], [result])


def batch_norm_apply(draw: Draw) -> Call:
    """Forward again."""
    return _applied(draw, "batch_norm_apply", saved=True)


def batch_norm_frozen(draw: Draw) -> Call:
    """In inference."""
    return _applied(draw, "batch_norm_frozen", saved=False)


def batch_norm_backward(draw: Draw) -> Call:
    """All gradients, by the saved statistics."""
    for _ in range(_TRIES):
        shape = _channels(draw)
        x, weight, bias = inputs(draw, *shape), draw.maybe(shape[1]), draw.maybe(shape[1])
        gradient, residual = draw.values(*shape), draw.maybe(*shape, probability=0.4)
        name, number = drawn(draw, PLAIN)
        mean, rstd = _statistics(x)
        y = _affine(double(x), optional(weight), optional(bias), double(mean), double(rstd), optional(residual))
        scale = largest(rstd) * (1 if weight is None else largest(weight))
        margin = 1e-6 * (1 + largest(y) + largest(x) * scale)
        if not near_a_kink(name, y, margin):
            break
    seen = y.detach().requires_grad_()
    PLAIN[name](seen, 0.0).backward(double(gradient))
    own = seen.grad
    assert own is not None
    # Activations bend by at most 1, so that what rounds their input rounds the gradient.
    inner = largest(own) + margin * 1e6
    to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
        own, double(x), optional(weight), None, None, double(mean), double(rstd), True, EPS, [True, True, True]
    )
    count = int(np.prod(shape)) // shape[1]
    reach = 1 + float(((double(x) - _spread(double(mean), x.ndim)) * _spread(double(rstd), x.ndim)).abs().max()) ** 2
    results: list[Result | None] = [
        near(to_x, scale * inner * reach),
        near(own, inner) if residual is not None else None,
        near(to_weight, inner * reach * count) if weight is not None else None,
        near(to_bias, inner * count) if bias is not None else None,
    ]
    return Call("batch_norm_backward", [gradient, x, weight, bias, mean, rstd, residual, number], results)


def _groups(draw: Draw) -> tuple[tuple[int, ...], int]:
    shape = _channels(draw)
    divisors = [g for g in range(1, shape[1] + 1) if shape[1] % g == 0]
    return shape, draw.pick(divisors)


def _group_norm(
    groups: int, name: str
) -> Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None], torch.Tensor]:
    """PyTorch refuses single values, whose normalised value is 0."""

    def compute(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
        rows = x.reshape(x.shape[0], groups, -1)
        variance = rows.var(-1, correction=0, keepdim=True)
        y = ((rows - rows.mean(-1, keepdim=True)) / (variance + EPS).sqrt()).reshape(x.shape)
        y = y if weight is None else y * _spread(weight, x.dim())
        return PLAIN[name](y if bias is None else y + _spread(bias, x.dim()), 0.0)

    return compute


def group_norm(draw: Draw) -> Call:
    """Forward."""
    shape, groups = _groups(draw)
    x, weight, bias = inputs(draw, *shape), draw.maybe(shape[1]), draw.maybe(shape[1])
    name, number = drawn(draw, PLAIN)
    compute = _group_norm(groups, name)
    if x[0].size // groups > 1 and name == "none":
        expected = functional.group_norm(double(x), groups, optional(weight), optional(bias), EPS)
        assert torch.allclose(compute(double(x), optional(weight), optional(bias)), expected)
    (result,) = perturbed(draw, lambda *tensors: [compute(*tensors)], [x, weight, bias], rounds=32)
    size = largest(x) * _largest_rstd(x, groups) * (1 if weight is None else largest(weight))
    results: list[Result | None] = [Result(result.expected, result.allowed + 4e-7 * size)]
    return Call("group_norm", [x, weight, bias, groups, EPS, number], results)


def group_norm_backward(draw: Draw) -> Call:
    """All gradients; the statistics are computed again."""
    for _ in range(_TRIES):
        shape, groups = _groups(draw)
        x, weight, bias = inputs(draw, *shape), draw.maybe(shape[1]), draw.maybe(shape[1])
        name, number = drawn(draw, PLAIN)
        seen = _group_norm(groups, "none")(double(x), optional(weight), optional(bias))
        rstd = _largest_rstd(x, groups)
        size = largest(x) * rstd * (1 if weight is None else largest(weight))
        if not near_a_kink(name, seen, 1e-6 * (1 + size)):
            break
    gradient = draw.values(*shape)

    def reference(*tensors: torch.Tensor | None) -> list[torch.Tensor]:
        of_gradient, *rest = tensors
        leaves = [None if t is None else t.detach().requires_grad_() for t in rest]
        _group_norm(groups, name)(*leaves).backward(of_gradient)
        return [leaf_.grad for leaf_ in leaves if leaf_ is not None]

    found = perturbed(draw, reference, [gradient, x, weight, bias], rounds=32)
    # x * scale + shift, which the activation sees: with a tiny variance both are large. No activation bends by more
    # than 1. And terms that cancel out in the gradient of x.
    seen_error = 4e-7 * size * largest(gradient) * x.size / shape[1]
    terms = rstd * largest(gradient) * (1 if weight is None else largest(weight)) * (1 + min(rstd, 3) * largest(x))
    more = iter([1e-6 * terms, *[seen_error] * 2])
    kept = iter([Result(one.expected, one.allowed + error) for one, error in zip(found, more, strict=False)])
    results: list[Result | None] = [None if t is None else next(kept) for t in (x, weight, bias)]
    return Call("group_norm_backward", [gradient, x, weight, bias, groups, EPS, number], results)


def _largest_rstd(x: Array, groups: int) -> float:
    variances = x.astype(np.float64).reshape(x.shape[0], groups, -1).var(-1)
    return float((1 / np.sqrt(variances + EPS)).max())


def channel_sum(draw: Draw) -> Call:
    """Over everything but the second dimension."""
    shape = _channels(draw)
    x = draw.values(*shape)
    dims = [0, *range(2, len(shape))]
    return Call("channel_sum", [x], [near(double(x).sum(dims), double(abs(x)).sum(dims))])
