"""The kernels of an optimizer's update against PyTorch in float64, over one step and many."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from device_profiles.manifest import Optimizer  # noqa: E402
from edge_runtime.device import _operators  # noqa: E402
from edge_runtime.device.prepare.hyperparameters import hyperparameters  # noqa: E402
from tests.support.kernels import call, close, exact, random  # noqa: E402


@pytest.fixture(autouse=True, params=[1, 2], ids=["one-thread", "two-threads"])
def _threads(request: pytest.FixtureRequest) -> None:
    _operators.set_threads(request.param)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torch_over_three_steps(momentum: float) -> None:
    parameter = random(40_001)
    reference = torch.nn.Parameter(exact(parameter.copy()))
    optimizer = torch.optim.SGD([reference], lr=0.1, momentum=momentum, weight_decay=5e-4)
    buffer = np.zeros_like(parameter) if momentum else None
    hyperparameters = np.array([0.1, momentum, 5e-4, 0.0], np.float32)
    for step in range(3):
        gradient = random(40_001, seed=step)
        reference.grad = exact(gradient)
        optimizer.step()
        call("sgd", parameter, gradient, hyperparameters, buffer, parameter, buffer)
    close(parameter, reference)


def test_half_momentum_is_the_nearest_bfloat16_of_the_velocity() -> None:
    parameter, gradient = random(1003), random(1003, seed=1)
    gradient[5], gradient[6] = np.nan, np.inf
    old = (random(1003, seed=2).view(np.uint32) >> 16).astype(np.uint16)
    new, buffer = parameter.copy(), old.copy()
    call("sgd", new, gradient, np.array([0.1, 0.9, 0.0, 0.0], np.float32), buffer, new, buffer)
    before = torch.from_numpy((old.astype(np.uint32) << 16).view(np.float32))
    velocity = np.float32(0.9) * before + torch.from_numpy(gradient)
    stored = torch.from_numpy((buffer.astype(np.uint32) << 16).view(np.float32))
    torch.testing.assert_close(stored, velocity.to(torch.bfloat16).float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(torch.from_numpy(new), torch.from_numpy(parameter) - 0.1 * velocity, equal_nan=True)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_follows_torch_for_many_steps(nesterov: bool) -> None:
    parameter = random(1003)
    reference = torch.nn.Parameter(exact(parameter.copy()))
    optimizer = torch.optim.SGD([reference], lr=0.01, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    buffer, filled = np.zeros_like(parameter), np.array([0.01, 0.9, 0.01, float(nesterov)], np.float32)
    for step in range(200):
        gradient = random(1003, seed=step)
        reference.grad = exact(gradient)
        optimizer.step()
        call("sgd", parameter, gradient, filled, buffer, parameter, buffer)
    close(parameter, reference)


def test_adamw_follows_torch_for_many_steps() -> None:
    parameter = random(2003)
    reference = torch.nn.Parameter(exact(parameter.copy()))
    settings = Optimizer(name="adamw", weight_decay=0.05, beta1=0.8, beta2=0.99, eps=1e-6)
    optimizer = torch.optim.AdamW([reference], lr=0.01, weight_decay=0.05, betas=(0.8, 0.99), eps=1e-6)
    first, second = np.zeros_like(parameter), np.zeros_like(parameter)
    for step in range(200):
        gradient = random(2003, seed=step) * np.float32(1e-3 if step < 20 else 1.0)
        reference.grad = exact(gradient)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimizer.step()
        filled = np.array(hyperparameters(settings, 0.01 / (1 + step), 0, 1, step), np.float32)
        state = (first, second)
        call("adamw", parameter, gradient, filled, *state, 0.8, 0.99, 1e-6, parameter, *state)
    close(parameter, reference)


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_gradients_are_clipped_by_the_norm_of_all_of_them(limit: float) -> None:
    gradients = [random(100_003), random(7, 5, seed=1), random(1, seed=2)]
    tensors = [torch.nn.Parameter(exact(g)) for g in gradients]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = exact(gradient)
    torch.nn.utils.clip_grad_norm_(tensors, limit)
    call("clip_factor", limit, *gradients, factor := np.empty((), np.float32))
    for tensor, gradient in zip(tensors, gradients, strict=True):
        call("scale_by", gradient, factor, gradient)
        close(gradient, tensor.grad)
