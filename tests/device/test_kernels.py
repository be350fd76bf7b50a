"""Every kernel against PyTorch in float64, on odd sizes and at the edges."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from device_profiles.manifest import Optimizer  # noqa: E402
from edge_runtime.device import _operators  # noqa: E402
from edge_runtime.device.prepare.hyperparameters import hyperparameters  # noqa: E402
from edge_runtime.export.operators.activation import ACTIVATIONS  # noqa: E402

TOLERANCE = 2e-5


@pytest.fixture(autouse=True, params=[1, 2], ids=["one-thread", "two-threads"])
def _threads(request: pytest.FixtureRequest) -> None:
    _operators.set_threads(request.param)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def _call(name: str, *arguments: object) -> None:
    converted = [list(a) if isinstance(a, tuple) else a for a in arguments]
    assert _operators.call(f"profl::{name}.out", converted) == 0


def _double(array: np.ndarray, *, gradient: bool = False) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float64)).requires_grad_(gradient)


def _close(ours: np.ndarray, expected: torch.Tensor, name: str = "") -> None:
    theirs = expected.detach().numpy()
    scale = max(float(np.abs(theirs).max()), 1e-3)
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max()) / scale < TOLERANCE, name


CONVOLUTIONS = [
    # batch, channels, height, width, outputs, kernel, stride, padding, dilation, groups
    (2, 3, 32, 32, 16, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (3, 5, 7, 9, 11, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    (2, 64, 8, 8, 70, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (4, 33, 4, 4, 49, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 8, 6, 6, 12, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (1, 4, 5, 5, 6, (3, 3), (1, 1), (2, 2), (2, 2), 1),
    (2, 6, 9, 5, 9, (3, 2), (2, 1), (1, 0), (1, 2), 3),
    (2, 7, 6, 6, 7, (3, 3), (1, 1), (1, 1), (1, 1), 7),
    (2, 3, 11, 13, 5, (5, 5), (3, 2), (2, 2), (1, 1), 1),
    (1, 2, 8, 8, 4, (3, 3), (4, 4), (1, 1), (1, 1), 1),
    (1, 40, 3, 3, 300, (3, 3), (1, 1), (1, 1), (1, 1), 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=[str(i) for i in range(len(CONVOLUTIONS))])
def test_convolution_and_its_gradients(case: tuple) -> None:
    n, c, h, w, o, kernel, stride, padding, dilation, groups = case
    x, weight, bias = _random(n, c, h, w), _random(o, c // groups, *kernel, seed=1), _random(o, seed=2)
    geometry = (stride, padding, dilation, groups)
    dx, dw, db = (_double(a, gradient=True) for a in (x, weight, bias))
    expected = functional.conv2d(dx, dw, db, stride, padding, dilation, groups)
    y = np.full(tuple(expected.shape), np.nan, np.float32)
    _call("conv2d", x, weight, bias, *geometry, y)
    _close(y, expected, "forward")
    gradient = _random(*y.shape, seed=3)
    expected.backward(_double(gradient))
    grad_x, grad_weight, grad_bias = (np.full(a.shape, np.nan, np.float32) for a in (x, weight, bias))
    _call("conv2d_input_grad", gradient, weight, None, *geometry, grad_x)
    _call("conv2d_weight_grad", gradient, x, *geometry, grad_weight)
    _call("channel_sum", gradient, grad_bias)
    _close(grad_x, dx.grad, "input gradient")
    _close(grad_weight, dw.grad, "weight gradient")
    _close(grad_bias, db.grad, "bias gradient")
    residual = _random(*x.shape, seed=4)
    in_place = residual.copy()
    _call("conv2d_input_grad", gradient, weight, in_place, *geometry, in_place)
    _close(in_place, dx.grad + _double(residual), "input gradient onto a residual, in place")


FUSED = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
}


@pytest.mark.parametrize("activation", FUSED)
@pytest.mark.parametrize("with_residual", [False, True])
def test_frozen_convolution_with_its_epilogue(activation: str, with_residual: bool) -> None:
    x, weight = _random(2, 5, 7, 7), _random(9, 5, 3, 3)
    gamma, beta, mean, variance = _random(9), _random(9, seed=1), _random(9, seed=2), np.abs(_random(9, seed=3)) + 0.1
    expected = functional.conv2d(_double(x), _double(weight), None, 2, 1)
    expected = functional.batch_norm(
        expected, _double(mean), _double(variance), _double(gamma), _double(beta), False, 0.1, 1e-5
    )
    residual = _random(*expected.shape, seed=5) if with_residual else None
    if residual is not None:
        expected = expected + _double(residual)
    expected = FUSED[activation](expected)
    out = residual if residual is not None else np.empty(tuple(expected.shape), np.float32)
    geometry = ((2, 2), (1, 1), (1, 1), 1)
    epilogue = (gamma, beta, mean, variance, 1e-5, residual, ACTIVATIONS[activation])
    _call("conv2d_frozen", x, weight, None, *epilogue, *geometry, out)
    _close(out, expected)


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (7, 17, 1, 1), (8, 2, 32, 32), (9, 5)])
@pytest.mark.parametrize("activation", FUSED)
@pytest.mark.parametrize("with_residual", [False, True])
def test_batch_norm_forward_again_and_backward(shape: tuple[int, ...], activation: str, with_residual: bool) -> None:
    channels = shape[1]
    x = _random(*shape) * 3 + 5
    weight, bias = _random(channels, seed=1), _random(channels, seed=2)
    mean, variance = _random(channels, seed=3), np.abs(_random(channels, seed=4)) + 0.5
    residual = _random(*shape, seed=5) if with_residual else None
    dx, dw, db = (_double(a, gradient=True) for a in (x, weight, bias))
    running_mean, running_variance = _double(mean), _double(variance)
    expected = functional.batch_norm(dx, running_mean, running_variance, dw, db, True, 0.1, 1e-5)
    dr = None if residual is None else _double(residual, gradient=True)
    if dr is not None:
        expected = expected + dr
    expected = FUSED[activation](expected)
    kind = ACTIVATIONS[activation]
    y, saved_mean, saved_rstd = np.empty_like(x), np.empty_like(weight), np.empty_like(weight)
    # The running statistics are updated in place, as the memory plan does it.
    statistics = (mean, variance)
    _call(
        "batch_norm_train", x, weight, bias, *statistics, 0.1, 1e-5, residual, kind, y, saved_mean, saved_rstd,
        *statistics,
    )  # fmt: skip
    _close(y, expected)
    _close(mean, running_mean)
    _close(variance, running_variance)
    again = np.empty_like(x)
    _call("batch_norm_apply", x, weight, bias, saved_mean, saved_rstd, residual, kind, again)
    np.testing.assert_array_equal(again, y)
    gradient = _random(*shape, seed=6)
    expected.backward(_double(gradient))
    to_x, to_residual = x.copy(), gradient.copy() if residual is not None else None
    to_weight, to_bias = np.empty_like(weight), np.empty_like(bias)
    source = to_residual if to_residual is not None else gradient
    # grad_x overwrites x, grad_residual overwrites the incoming gradient.
    _call(
        "batch_norm_backward", source, to_x, weight, bias, saved_mean, saved_rstd, residual, kind, to_x, to_residual,
        to_weight, to_bias,
    )  # fmt: skip
    _close(to_weight, dw.grad, "weight")
    _close(to_bias, db.grad, "bias")
    _close(to_x, dx.grad, "input")
    if dr is not None:
        _close(to_residual, dr.grad, "residual")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil_mode"),
    [((8, 8), 2, 2, 0, False), ((7, 9), 3, 2, 1, False), ((5, 5), 3, 2, 0, True), ((1, 1), 1, 1, 0, False)],
)
def test_max_pool_and_its_gradient(
    size: tuple[int, int], kernel: int, stride: int, padding: int, ceil_mode: bool
) -> None:
    x = np.round(_random(2, 3, *size))  # rounded, so that maxima are tied
    dx = _double(x, gradient=True)
    expected = functional.max_pool2d(dx, kernel, stride, padding, 1, ceil_mode)
    y = np.empty(tuple(expected.shape), np.float32)
    window = ((kernel, kernel), (stride, stride), (padding, padding), (1, 1), ceil_mode)
    _call("max_pool2d", x, *window, y)
    _close(y, expected)
    gradient = _random(*y.shape, seed=1)
    expected.backward(_double(gradient))
    to_x = np.empty_like(x)
    _call("max_pool2d_backward", gradient, x, *window, to_x)
    _close(to_x, dx.grad)


def test_pooling_linear_and_loss_make_a_head() -> None:
    x, weight, bias = _random(5, 7, 3, 3), _random(4, 7), _random(4)
    labels = np.array([0, 3, 1, 1, 2])
    dx, dw, db = (_double(a, gradient=True) for a in (x, weight, bias))
    expected_logits = functional.linear(dx.mean((2, 3)), dw, db)
    expected = functional.cross_entropy(expected_logits, torch.from_numpy(labels))
    pooled, logits = np.empty((5, 7), np.float32), np.empty((5, 4), np.float32)
    loss, gradient = np.empty((), np.float32), np.empty((5, 4), np.float32)
    _call("global_average_pool", x, pooled)
    _call("linear", pooled, weight, bias, logits)
    _call("cross_entropy", logits, labels, len(labels), 0.0, loss, gradient)
    _close(logits, expected_logits)
    _close(loss, expected)
    expected.backward()
    to_pooled, to_weight, to_bias, to_x = (np.empty_like(a) for a in (pooled, weight, bias, x))
    _call("linear_weight_grad", gradient, pooled, to_weight)
    _call("channel_sum", gradient, to_bias)
    _call("linear_input_grad", gradient, weight, to_pooled)
    _call("global_average_pool_backward", to_pooled, to_x)
    _close(to_weight, dw.grad)
    _close(to_bias, db.grad)
    _close(to_x, dx.grad)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_out_of_range_is_an_error_and_no_crash(label: int) -> None:
    logits, out = _random(2, 4), np.empty((2, 4), np.float32)
    arguments = [logits, np.array([0, label]), 2, 0.0, np.empty((), np.float32), out]
    assert _operators.call("profl::cross_entropy.out", arguments) == 18


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torch_over_three_steps(momentum: float) -> None:
    parameter = _random(40_001)
    reference = torch.nn.Parameter(_double(parameter.copy()))
    optimizer = torch.optim.SGD([reference], lr=0.1, momentum=momentum, weight_decay=5e-4)
    buffer = np.zeros_like(parameter) if momentum else None
    hyperparameters = np.array([0.1, momentum, 5e-4, 0.0], np.float32)
    for step in range(3):
        gradient = _random(40_001, seed=step)
        reference.grad = _double(gradient)
        optimizer.step()
        _call("sgd", parameter, gradient, hyperparameters, buffer, parameter, buffer)
    _close(parameter, reference)


def test_half_momentum_is_the_nearest_bfloat16_of_the_velocity() -> None:
    parameter, gradient = _random(1003), _random(1003, seed=1)
    gradient[5], gradient[6] = np.nan, np.inf
    old = (_random(1003, seed=2).view(np.uint32) >> 16).astype(np.uint16)
    new, buffer = parameter.copy(), old.copy()
    _call("sgd", new, gradient, np.array([0.1, 0.9, 0.0, 0.0], np.float32), buffer, new, buffer)
    before = torch.from_numpy((old.astype(np.uint32) << 16).view(np.float32))
    velocity = np.float32(0.9) * before + torch.from_numpy(gradient)
    stored = torch.from_numpy((buffer.astype(np.uint32) << 16).view(np.float32))
    torch.testing.assert_close(stored, velocity.to(torch.bfloat16).float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(torch.from_numpy(new), torch.from_numpy(parameter) - 0.1 * velocity, equal_nan=True)


def test_elementwise_operations_in_place() -> None:
    a, b = _random(70_001), _random(70_001, seed=1)
    total = a.copy()
    _call("add", total, b, True, total)
    np.testing.assert_array_equal(total, np.maximum(a + b, 0))
    masked = a.copy()
    _call("activation_backward", masked, total, ACTIVATIONS["relu"], 0.0, masked)
    np.testing.assert_array_equal(masked, np.where(total > 0, a, 0))
    _call("fill", 2.5, b)
    assert set(b) == {2.5}


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_follows_torch_for_many_steps(nesterov: bool) -> None:
    parameter = _random(1003)
    reference = torch.nn.Parameter(_double(parameter.copy()))
    optimizer = torch.optim.SGD([reference], lr=0.01, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    buffer, filled = np.zeros_like(parameter), np.array([0.01, 0.9, 0.01, float(nesterov)], np.float32)
    for step in range(200):
        gradient = _random(1003, seed=step)
        reference.grad = _double(gradient)
        optimizer.step()
        _call("sgd", parameter, gradient, filled, buffer, parameter, buffer)
    _close(parameter, reference)


def test_adamw_follows_torch_for_many_steps() -> None:
    parameter = _random(2003)
    reference = torch.nn.Parameter(_double(parameter.copy()))
    settings = Optimizer(name="adamw", weight_decay=0.05, beta1=0.8, beta2=0.99, eps=1e-6)
    optimizer = torch.optim.AdamW([reference], lr=0.01, weight_decay=0.05, betas=(0.8, 0.99), eps=1e-6)
    first, second = np.zeros_like(parameter), np.zeros_like(parameter)
    for step in range(200):
        gradient = _random(2003, seed=step) * np.float32(1e-3 if step < 20 else 1.0)
        reference.grad = _double(gradient)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimizer.step()
        filled = np.array(hyperparameters(settings, 0.01 / (1 + step), 0, 1, step), np.float32)
        state = (first, second)
        _call("adamw", parameter, gradient, filled, *state, 0.8, 0.99, 1e-6, parameter, *state)
    _close(parameter, reference)


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_gradients_are_clipped_by_the_norm_of_all_of_them(limit: float) -> None:
    gradients = [_random(100_003), _random(7, 5, seed=1), _random(1, seed=2)]
    tensors = [torch.nn.Parameter(_double(g)) for g in gradients]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = _double(gradient)
    torch.nn.utils.clip_grad_norm_(tensors, limit)
    _call("clip_factor", limit, *gradients, factor := np.empty((), np.float32))
    for tensor, gradient in zip(tensors, gradients, strict=True):
        _call("scale_by", gradient, factor, gradient)
        _close(gradient, tensor.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_and_their_gradient(smoothing: float) -> None:
    logits, labels = _random(6, 9) * 10, np.array([0, 8, 1, 1, 2, 5])
    d = _double(logits, gradient=True)
    expected = functional.cross_entropy(d, torch.from_numpy(labels), label_smoothing=smoothing)
    expected.backward()
    _call("cross_entropy", logits, labels, 6, smoothing, loss := np.empty((), np.float32), logits)
    _close(loss, expected)
    _close(logits, d.grad)


def test_the_mean_squared_error_and_its_gradient() -> None:
    values, targets = _random(6, 9), _random(6, 9, seed=1)
    d = _double(values, gradient=True)
    expected = functional.mse_loss(d, _double(targets))
    expected.backward()
    _call("mean_squared_error", values, targets, 6, loss := np.empty((), np.float32), values)
    _close(loss, expected)
    _close(values, d.grad)
