"""Every kernel against PyTorch in float64, on odd sizes and at the edges."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from edge_runtime.device import _operators  # noqa: E402
from edge_runtime.export.operators.activation import ACTIVATIONS  # noqa: E402
from tests.support.kernels import call, close, double, exact, random  # noqa: E402


@pytest.fixture(autouse=True, params=[1, 2], ids=["one-thread", "two-threads"])
def _threads(request: pytest.FixtureRequest) -> None:
    _operators.set_threads(request.param)


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
    x, weight, bias = random(n, c, h, w), random(o, c // groups, *kernel, seed=1), random(o, seed=2)
    geometry = (stride, padding, dilation, groups)
    dx, dw, db = (double(a) for a in (x, weight, bias))
    expected = functional.conv2d(dx, dw, db, stride, padding, dilation, groups)
    y = np.full(tuple(expected.shape), np.nan, np.float32)
    call("conv2d", x, weight, bias, *geometry, y)
    close(y, expected, "forward")
    gradient = random(*y.shape, seed=3)
    expected.backward(exact(gradient))
    grad_x, grad_weight, grad_bias = (np.full(a.shape, np.nan, np.float32) for a in (x, weight, bias))
    call("conv2d_input_grad", gradient, weight, None, *geometry, grad_x)
    call("conv2d_weight_grad", gradient, x, *geometry, grad_weight)
    call("channel_sum", gradient, grad_bias)
    close(grad_x, dx.grad, "input gradient")
    close(grad_weight, dw.grad, "weight gradient")
    close(grad_bias, db.grad, "bias gradient")
    residual = random(*x.shape, seed=4)
    in_place = residual.copy()
    call("conv2d_input_grad", gradient, weight, in_place, *geometry, in_place)
    close(in_place, dx.grad + exact(residual), "input gradient onto a residual, in place")


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
    x, weight = random(2, 5, 7, 7), random(9, 5, 3, 3)
    gamma, beta, mean, variance = random(9), random(9, seed=1), random(9, seed=2), np.abs(random(9, seed=3)) + 0.1
    expected = functional.conv2d(exact(x), exact(weight), None, 2, 1)
    expected = functional.batch_norm(
        expected, exact(mean), exact(variance), exact(gamma), exact(beta), False, 0.1, 1e-5
    )
    residual = random(*expected.shape, seed=5) if with_residual else None
    if residual is not None:
        expected = expected + exact(residual)
    expected = FUSED[activation](expected)
    out = residual if residual is not None else np.empty(tuple(expected.shape), np.float32)
    geometry = ((2, 2), (1, 1), (1, 1), 1)
    epilogue = (gamma, beta, mean, variance, 1e-5, residual, ACTIVATIONS[activation])
    call("conv2d_frozen", x, weight, None, *epilogue, *geometry, out)
    close(out, expected)


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (7, 17, 1, 1), (8, 2, 32, 32), (9, 5)])
@pytest.mark.parametrize("activation", FUSED)
@pytest.mark.parametrize("with_residual", [False, True])
def test_batch_norm_forward_again_and_backward(shape: tuple[int, ...], activation: str, with_residual: bool) -> None:
    channels = shape[1]
    x = random(*shape) * 3 + 5
    weight, bias = random(channels, seed=1), random(channels, seed=2)
    mean, variance = random(channels, seed=3), np.abs(random(channels, seed=4)) + 0.5
    residual = random(*shape, seed=5) if with_residual else None
    dx, dw, db = (double(a) for a in (x, weight, bias))
    running_mean, running_variance = exact(mean), exact(variance)
    expected = functional.batch_norm(dx, running_mean, running_variance, dw, db, True, 0.1, 1e-5)
    dr = None if residual is None else double(residual)
    if dr is not None:
        expected = expected + dr
    expected = FUSED[activation](expected)
    kind = ACTIVATIONS[activation]
    y, saved_mean, saved_rstd = np.empty_like(x), np.empty_like(weight), np.empty_like(weight)
    # The running statistics are updated in place, as the memory plan does it.
    statistics = (mean, variance)
    call(
        "batch_norm_train", x, weight, bias, *statistics, 0.1, 1e-5, residual, kind, y, saved_mean, saved_rstd,
        *statistics,
    )  # fmt: skip
    close(y, expected)
    close(mean, running_mean)
    close(variance, running_variance)
    again = np.empty_like(x)
    call("batch_norm_apply", x, weight, bias, saved_mean, saved_rstd, residual, kind, again)
    np.testing.assert_array_equal(again, y)
    gradient = random(*shape, seed=6)
    expected.backward(exact(gradient))
    to_x, to_residual = x.copy(), gradient.copy() if residual is not None else None
    to_weight, to_bias = np.empty_like(weight), np.empty_like(bias)
    source = to_residual if to_residual is not None else gradient
    # grad_x overwrites x, grad_residual overwrites the incoming gradient.
    call(
        "batch_norm_backward", source, to_x, weight, bias, saved_mean, saved_rstd, residual, kind, to_x, to_residual,
        to_weight, to_bias,
    )  # fmt: skip
    close(to_weight, dw.grad, "weight")
    close(to_bias, db.grad, "bias")
    close(to_x, dx.grad, "input")
    if dr is not None:
        close(to_residual, dr.grad, "residual")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil_mode"),
    [((8, 8), 2, 2, 0, False), ((7, 9), 3, 2, 1, False), ((5, 5), 3, 2, 0, True), ((1, 1), 1, 1, 0, False)],
)
def test_max_pool_and_its_gradient(
    size: tuple[int, int], kernel: int, stride: int, padding: int, ceil_mode: bool
) -> None:
    x = np.round(random(2, 3, *size))  # rounded, so that maxima are tied
    dx = double(x)
    expected = functional.max_pool2d(dx, kernel, stride, padding, 1, ceil_mode)
    y = np.empty(tuple(expected.shape), np.float32)
    window = ((kernel, kernel), (stride, stride), (padding, padding), (1, 1), ceil_mode)
    call("max_pool2d", x, *window, y)
    close(y, expected)
    gradient = random(*y.shape, seed=1)
    expected.backward(exact(gradient))
    to_x = np.empty_like(x)
    call("max_pool2d_backward", gradient, x, *window, to_x)
    close(to_x, dx.grad)


def test_pooling_linear_and_loss_make_a_head() -> None:
    x, weight, bias = random(5, 7, 3, 3), random(4, 7), random(4)
    labels = np.array([0, 3, 1, 1, 2])
    dx, dw, db = (double(a) for a in (x, weight, bias))
    expected_logits = functional.linear(dx.mean((2, 3)), dw, db)
    expected = functional.cross_entropy(expected_logits, torch.from_numpy(labels))
    pooled, logits = np.empty((5, 7), np.float32), np.empty((5, 4), np.float32)
    loss, gradient = np.empty((), np.float32), np.empty((5, 4), np.float32)
    call("global_average_pool", x, pooled)
    call("linear", pooled, weight, bias, logits)
    call("cross_entropy", logits, labels, len(labels), 0.0, loss, gradient)
    close(logits, expected_logits)
    close(loss, expected)
    expected.backward()
    to_pooled, to_weight, to_bias, to_x = (np.empty_like(a) for a in (pooled, weight, bias, x))
    call("linear_weight_grad", gradient, pooled, to_weight)
    call("channel_sum", gradient, to_bias)
    call("linear_input_grad", gradient, weight, to_pooled)
    call("global_average_pool_backward", to_pooled, to_x)
    close(to_weight, dw.grad)
    close(to_bias, db.grad)
    close(to_x, dx.grad)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_out_of_range_is_an_error_and_no_crash(label: int) -> None:
    logits, out = random(2, 4), np.empty((2, 4), np.float32)
    arguments = [logits, np.array([0, label]), 2, 0.0, np.empty((), np.float32), out]
    assert _operators.call("profl::cross_entropy.out", arguments) == 18


def test_elementwise_operations_in_place() -> None:
    a, b = random(70_001), random(70_001, seed=1)
    total = a.copy()
    call("add", total, b, True, total)
    np.testing.assert_array_equal(total, np.maximum(a + b, 0))
    masked = a.copy()
    call("activation_backward", masked, total, ACTIVATIONS["relu"], 0.0, masked)
    np.testing.assert_array_equal(masked, np.where(total > 0, a, 0))
    call("fill", 2.5, b)
    assert set(b) == {2.5}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_and_their_gradient(smoothing: float) -> None:
    logits, labels = random(6, 9) * 10, np.array([0, 8, 1, 1, 2, 5])
    d = double(logits)
    expected = functional.cross_entropy(d, torch.from_numpy(labels), label_smoothing=smoothing)
    expected.backward()
    call("cross_entropy", logits, labels, 6, smoothing, loss := np.empty((), np.float32), logits)
    close(loss, expected)
    close(logits, d.grad)


def test_parts_of_a_batch_have_their_share_of_the_mean_over_its_labels_that_count() -> None:
    logits, labels = random(9, 5) * 10, np.array([0, -100, 1, -100, 2, 4, -100, -100, -100])
    d = double(logits)
    expected = functional.cross_entropy(d, torch.from_numpy(labels))
    expected.backward()
    counts, total = np.array([7.0, 4.0], np.float32), 0.0
    for part in (slice(0, 3), slice(3, 6), slice(6, 9)):
        loss, gradient = np.empty((), np.float32), np.empty((3, 5), np.float32)
        call("cross_entropy_of_batch", logits[part].copy(), labels[part].copy(), counts, 1, 0.0, loss, gradient)
        close(gradient, d.grad[part])
        total += float(loss)
    assert total == pytest.approx(expected.item(), rel=1e-6)


def test_the_mean_squared_error_and_its_gradient() -> None:
    values, targets = random(6, 9), random(6, 9, seed=1)
    d = double(values)
    expected = functional.mse_loss(d, exact(targets))
    expected.backward()
    call("mean_squared_error", values, targets, 6, loss := np.empty((), np.float32), values)
    close(loss, expected)
    close(values, d.grad)
