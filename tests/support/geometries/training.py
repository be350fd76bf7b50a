"""Random losses and updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from device_profiles.contract import IGNORED_LABEL
from tests.support.geometries.draw import Array, Call, Draw, Result, double, leaf, near

_HALF = 2.0**-8  # of a bfloat16, relative


@dataclass(frozen=True)
class Update:
    """Arguments behind the weight, and the new weight and momentum."""

    arguments: list[Any]
    results: list[Result | None]


def update(draw: Draw, weight: Array, gradient: torch.Tensor, allowed: float) -> Update:
    """An update of torch.optim.SGD by a gradient that may be off by `allowed`; with a proximal term or without."""
    rate, momentum, decay, factor = (draw.number(0.0, most) for most in (0.2, 0.99, 0.1, 0.5))
    nesterov, proximal = draw.chance(0.3), draw.chance(0.3)
    buffer, before = _momentum(draw, weight.shape)
    start = draw.values(*weight.shape) if proximal else None
    parameter = torch.nn.Parameter(double(weight))
    optimizer = torch.optim.SGD(
        [parameter],
        lr=rate,
        momentum=momentum if buffer is not None else 0.0,
        weight_decay=decay,
        nesterov=nesterov and buffer is not None and momentum > 0,
    )
    parameter.grad = gradient + (0.0 if start is None else factor * (double(weight) - double(start)))
    if before is not None:
        optimizer.state[parameter]["momentum_buffer"] = before.clone()
    optimizer.step()
    filled = np.array([rate, momentum, decay, float(nesterov), *([factor] if proximal else [])], np.float32)
    size = float(np.abs(weight).max()) * 3 + float(gradient.abs().max()) + (0 if before is None else 5.0)
    error = 2 * allowed + 1e-6 * size
    results: list[Result | None] = [Result(parameter.detach().numpy(), error), None]
    if buffer is not None:
        velocity = optimizer.state[parameter]["momentum_buffer"].detach().numpy()
        half = _HALF * np.abs(velocity) if buffer.dtype == np.uint16 else 0.0
        results[1] = Result(velocity, error + half, buffer.dtype.type)
    return Update([filled, buffer, *([start] if proximal else [])], results)


def _momentum(draw: Draw, shape: tuple[int, ...]) -> tuple[Array | None, torch.Tensor | None]:
    """None, or one of float32 or of bfloat16, which is the upper half of a float."""
    kind = draw.whole(0, 2)
    values = draw.values(*shape)
    if kind == 0:
        return None, None
    if kind == 1:
        return values, double(values)
    half = (values.view(np.uint32) >> 16).astype(np.uint16)
    return half, double((half.astype(np.uint32) << 16).view(np.float32))


def sgd(draw: Draw) -> Call:
    """An update by a gradient."""
    weight = draw.values(*draw.shape())
    gradient = draw.values(*weight.shape)
    step = update(draw, weight, double(gradient), 0.0)
    return Call("sgd", [weight, gradient, *step.arguments], step.results)


def adamw(draw: Draw) -> Call:
    """A later step of torch.optim.AdamW."""
    shape = draw.shape()
    weight, gradient, first = (draw.values(*shape) for _ in range(3))
    second = first * first + np.abs(draw.values(*shape)) * np.float32(0.1)
    rate, decay, step = draw.number(0, 0.1), draw.number(0, 0.3), draw.whole(0, 50)
    beta1, beta2, eps = draw.number(0.5, 0.99), draw.number(0.8, 0.999), draw.pick([1e-8, 1e-6, 1e-3])
    parameter = torch.nn.Parameter(double(weight))
    optimizer = torch.optim.AdamW([parameter], lr=rate, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    parameter.grad = double(gradient)
    optimizer.state[parameter].update(step=torch.tensor(float(step)), exp_avg=double(first), exp_avg_sq=double(second))
    optimizer.step()
    state = optimizer.state[parameter]
    corrections = (1 / (1 - beta1 ** (step + 1)), 1 / (1 - beta2 ** (step + 1)) ** 0.5)
    filled = np.array([rate, *corrections, decay], np.float32)
    results = [
        near(parameter, np.abs(weight) + 20 * rate),
        near(state["exp_avg"], np.abs(first) + np.abs(gradient)),
        near(state["exp_avg_sq"], second + gradient**2),
    ]
    return Call("adamw", [weight, gradient, filled, first, second, beta1, beta2, eps], [*results])


def clip_factor(draw: Draw) -> Call:
    """What limits the norm of some gradients together."""
    gradients = [draw.values(*draw.shape()) for _ in range(draw.whole(1, 4))]
    limit = draw.number(0.01, 100)
    norm = torch.nn.utils.get_total_norm([double(g) for g in gradients])
    return Call("clip_factor", [limit, *gradients], [near((limit / (norm + 1e-6)).clamp(max=1.0), 1.0)])


def scale_by(draw: Draw) -> Call:
    """A tensor times another's only element."""
    x, factor = draw.values(*draw.shape()), draw.values()
    return Call("scale_by", [x, factor], [near(double(x) * double(factor), np.abs(x * factor))])


def cross_entropy(draw: Draw) -> Call:
    """Of integer labels, smoothed or not, as a share of some examples, or of those whose label counts."""
    batch, classes = draw.extent(40), draw.extent(40)
    logits = draw.values(batch, classes) * np.float32(draw.pick([1, 10]))
    labels = draw.random.integers(0, classes, batch)
    examples, smoothing = batch * draw.whole(1, 3), draw.pick([0.0, 0.1, 0.5, 1.0])
    if draw.chance(0.4):
        examples = 0
        labels[draw.random.random(batch) < draw.pick([0.0, 0.5, 1.0])] = IGNORED_LABEL
    share = float(examples or max(1, (labels != IGNORED_LABEL).sum()))
    results = _share_of_cross_entropy(draw, logits, labels, smoothing, share)
    return Call("cross_entropy", [logits, labels, examples, smoothing], results)


def cross_entropy_of_batch(draw: Draw) -> Call:
    """Of labels some of which do not count, as a share of those of a larger batch that do."""
    batch, classes = draw.extent(40), draw.extent(40)
    logits = draw.values(batch, classes)
    labels = draw.random.integers(0, classes, batch)
    labels[draw.random.random(batch) < draw.pick([0.0, 0.5, 1.0])] = IGNORED_LABEL
    hyperparameters, smoothing = draw.values(draw.whole(1, 6)), draw.pick([0.0, 0.1, 0.5, 1.0])
    place = draw.whole(0, len(hyperparameters) - 1)
    hyperparameters[place] = draw.pick([0, 1, batch, 3 * batch])
    share = float(max(1, hyperparameters[place]))
    results = _share_of_cross_entropy(draw, logits, labels, smoothing, share)
    return Call("cross_entropy_of_batch", [logits, labels, hyperparameters, place, smoothing], results)


def _share_of_cross_entropy(draw: Draw, logits: Any, labels: Any, smoothing: float, share: float) -> list[Any]:
    """The sum over the labels that count as a share of `share` of them, and mostly its gradient."""
    values = leaf(logits)
    total = functional.cross_entropy(
        values, torch.from_numpy(labels), reduction="sum", label_smoothing=smoothing, ignore_index=IGNORED_LABEL
    )
    loss = total / share
    loss.backward()
    assert values.grad is not None
    return [near(loss, 1 + loss.abs()), near(values.grad, 1.0 / share) if draw.chance(0.8) else None]


def mean_squared_error(draw: Draw) -> Call:
    """Of values of any shape."""
    shape = draw.shape()
    values, targets = draw.values(*shape), draw.values(*shape)
    examples = shape[0] * draw.whole(1, 3)
    of_values = leaf(values)
    loss = functional.mse_loss(of_values, double(targets)) * shape[0] / examples
    loss.backward()
    assert of_values.grad is not None
    size = 4 * float(of_values.grad.abs().max()) + 1e-9
    results = [near(loss, 1 + loss.abs()), near(of_values.grad, size) if draw.chance(0.8) else None]
    return Call("mean_squared_error", [values, targets, examples], results)
