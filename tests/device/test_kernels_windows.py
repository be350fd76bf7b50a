"""Pooling, GroupNorm and convolutions of sequences against PyTorch in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from edge_runtime.device import _operators  # noqa: E402
from edge_runtime.export.operators.activation import ACTIVATIONS  # noqa: E402
from tests.support.kernels import call, close, double, random  # noqa: E402


@pytest.fixture(autouse=True, params=[1, 2], ids=["one-thread", "two-threads"])
def _threads(request: pytest.FixtureRequest) -> None:
    _operators.set_threads(request.param)


def _pool(
    kernel: str, x: np.ndarray, window: tuple[object, ...], expect: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Pool x and spread a gradient back; `max` reads its input again."""
    dx = double(x)
    expected = expect(dx)
    y, to_x = np.full(tuple(expected.shape), np.nan, np.float32), np.full(x.shape, np.nan, np.float32)
    call(kernel, x, *window, y)
    close(y, expected)
    gradient = random(*y.shape, seed=1)
    expected.backward(double(gradient).detach())
    call(f"{kernel}_backward", gradient, *((x,) if kernel == "max_pool2d" else ()), *window, to_x)
    close(to_x, dx.grad)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil_mode"),
    [
        ((8, 8), 2, 2, 0, False),
        ((7, 9), 3, 2, 1, False),
        ((5, 6), 3, 2, 0, True),
        ((1, 1), 1, 1, 0, False),
        ((6, 7), 3, 2, 1, True),
    ],
)
@pytest.mark.parametrize("count_padding", [False, True])
def test_average_pooling(
    size: tuple[int, int], kernel: int, stride: int, padding: int, ceil_mode: bool, count_padding: bool
) -> None:
    window = ((kernel, kernel), (stride, stride), (padding, padding), count_padding, 0)
    _pool(
        "average_pool2d",
        random(2, 3, *size),
        window,
        lambda x: functional.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_padding),
    )


def test_average_pooling_with_a_divisor() -> None:
    window = ((2, 3), (1, 2), (1, 1), True, 5)
    _pool(
        "average_pool2d",
        random(2, 3, 6, 7),
        window,
        lambda x: functional.avg_pool2d(x, (2, 3), (1, 2), 1, False, True, 5),
    )


@pytest.mark.parametrize("output", [(1, 1), (3, 4), (7, 7), (5, 2), (14, 3)])
def test_adaptive_pooling_to_any_size(output: tuple[int, int]) -> None:
    x, adaptive = random(2, 3, 7, 9), ((0, 0), (1, 1), (0, 0))
    _pool("average_pool2d", x, (*adaptive, False, 0), lambda x: functional.adaptive_avg_pool2d(x, output))
    _pool("max_pool2d", x, (*adaptive, (1, 1), False), lambda x: functional.adaptive_max_pool2d(x, output))


def test_pooling_of_sequences() -> None:
    x = random(2, 5, 23)
    window = ((1, 3), (1, 2), (0, 1))
    _pool("max_pool2d", x, (*window, (1, 2), True), lambda x: functional.max_pool1d(x, 3, 2, 1, 2, True))
    _pool("average_pool2d", x, (*window, True, 0), lambda x: functional.avg_pool1d(x, 3, 2, 1))
    adaptive = ((0, 0), (1, 1), (0, 0))
    _pool("average_pool2d", x, (*adaptive, False, 0), lambda x: functional.adaptive_avg_pool1d(x, 4))
    _pool("max_pool2d", x, (*adaptive, (1, 1), False), lambda x: functional.adaptive_max_pool1d(x, 4))


def test_max_pooling_with_dilation() -> None:
    window = ((3, 2), (2, 1), (1, 1), (2, 3), False)
    _pool("max_pool2d", random(2, 3, 9, 8), window, lambda x: functional.max_pool2d(x, (3, 2), (2, 1), 1, (2, 3)))


_WINDOWS = [
    # kernel, stride, padding, dilation
    *itertools.product((1, 2, 3), (1, 2, 3), (0,), (1, 2)),
    *itertools.product((3, 5), (1, 2, 4), (1,), (1, 3)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), _WINDOWS)
def test_the_maximum_that_pytorch_picks_gets_the_gradient(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    generator = np.random.default_rng(kernel * 100 + stride * 10 + dilation)
    for height, width in ((13, 13), (11, 30), (14, 17)):
        # Ties nearly everywhere, windows of nothing but minus infinity, NaN here and there.
        x = generator.integers(-2, 3, (2, 3, height, width)).astype(np.float32)
        x[0, 1, : height // 2] = -np.inf
        x[1, 2, generator.random((height, width)) < 0.1] = np.nan
        window = ((kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2, False)
        dx = double(x)
        expected = functional.max_pool2d(dx, kernel, stride, padding, dilation)
        gradient = random(*expected.shape, seed=1)
        expected.backward(double(gradient).detach())
        y, to_x = np.empty(tuple(expected.shape), np.float32), np.empty(x.shape, np.float32)
        call("max_pool2d", x, *window, y)
        call("max_pool2d_backward", gradient, x, *window, to_x)
        assert np.array_equal(y, expected.detach().numpy(), equal_nan=True)
        assert dx.grad is not None
        np.testing.assert_allclose(to_x, dx.grad.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((4, 6, 5, 7), 1), ((4, 6, 5, 7), 2), ((4, 6, 5, 7), 6), ((3, 6, 19), 3), ((5, 6), 2), ((2, 6, 1, 1), 1)],
)
@pytest.mark.parametrize(("activation", "affine"), [("none", True), ("none", False), ("relu", True), ("silu", True)])
def test_group_norm_and_its_gradients(shape: tuple[int, ...], groups: int, activation: str, affine: bool) -> None:
    channels = shape[1]
    x = random(*shape) * 3 + 5
    weight, bias = (random(channels, seed=1), random(channels, seed=2)) if affine else (None, None)
    dx = double(x)
    dw, db = (None if p is None else double(p) for p in (weight, bias))
    expected = functional.group_norm(dx, groups, dw, db, 1e-5)
    expected = {"none": lambda x: x, "relu": torch.relu, "silu": functional.silu}[activation](expected)
    how = (groups, 1e-5, ACTIVATIONS[activation])
    y = np.empty_like(x)
    call("group_norm", x, weight, bias, *how, y)
    close(y, expected)
    gradient = random(*shape, seed=3)
    expected.backward(double(gradient).detach())
    to_x, to_weight, to_bias = x.copy(), None if weight is None else weight * np.nan, None if bias is None else bias * 0
    call("group_norm_backward", gradient, to_x, weight, bias, *how, to_x, to_weight, to_bias)  # over x
    close(to_x, dx.grad, "input", tolerance=5e-5)
    if dw is not None and db is not None:
        close(to_weight, dw.grad, "weight")
        close(to_bias, db.grad, "bias")


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (8, 5), (3, 4, 9)])
def test_batch_norm_without_weight_and_bias(shape: tuple[int, ...]) -> None:
    x, channels = random(*shape), shape[1]
    mean, variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    dx = double(x)
    expected = functional.batch_norm(dx, None, None, None, None, True, 0.1, 1e-5)
    y, saved_mean, saved_rstd = np.empty_like(x), np.empty_like(mean), np.empty_like(mean)
    none = ACTIVATIONS["none"]
    saved = (saved_mean, saved_rstd)
    call("batch_norm_train", x, None, None, mean, variance, 0.1, 1e-5, None, none, y, *saved, mean, variance)
    close(y, expected)
    gradient, to_x = random(*shape, seed=1), np.empty_like(x)
    expected.backward(double(gradient).detach())
    call("batch_norm_backward", gradient, x, None, None, saved_mean, saved_rstd, None, none, to_x, None, None, None)
    close(to_x, dx.grad, tolerance=5e-5)
    frozen = np.empty_like(x)
    call("batch_norm_frozen", x, None, None, mean, variance, 1e-5, None, none, frozen)
    running = (double(array).detach() for array in (mean, variance))
    close(frozen, functional.batch_norm(double(x), *running, None, None, False, 0.1, 1e-5))


SEQUENCES = [
    # length, inputs, outputs, kernel, stride, padding, dilation, groups
    (23, 5, 7, 3, 1, 1, 1, 1),
    (128, 6, 16, 5, 2, 2, 1, 1),
    (40, 8, 8, 3, 1, 2, 2, 8),
    (17, 6, 9, 4, 3, 0, 1, 3),
    (9, 4, 4, 1, 1, 0, 1, 1),
]


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_a_convolution_of_sequences_is_one_of_height_one(case: tuple[int, ...]) -> None:
    length, inputs, outputs, kernel, stride, padding, dilation, groups = case
    x, weight = random(3, inputs, length), random(outputs, inputs // groups, kernel, seed=1)
    dx, dw = double(x), double(weight)
    expected = functional.conv1d(dx, dw, None, stride, padding, dilation, groups)
    geometry = ((1, stride), (0, padding), (1, dilation), groups)
    y, to_x, to_weight = (np.full(tuple(a.shape), np.nan, np.float32) for a in (expected, x, weight))
    call("conv2d", x, weight, None, *geometry, y)
    close(y, expected)
    gradient = random(*y.shape, seed=2)
    expected.backward(double(gradient).detach())
    call("conv2d_input_grad", gradient, weight, None, *geometry, to_x)
    call("conv2d_weight_grad", gradient, x, *geometry, to_weight)
    close(to_x, dx.grad, "input")
    close(to_weight, dw.grad, "weight")


@pytest.mark.parametrize(("kernel", "dilation"), [((2, 4), (1, 1)), ((3, 3), (1, 2)), ((4, 2), (3, 1))])
def test_the_far_side_of_padding_given_as_same_follows_from_the_output(
    kernel: tuple[int, int], dilation: tuple[int, int]
) -> None:
    x, weight = random(2, 3, 9, 8), random(4, 3, *kernel, seed=1)
    dx, dw = double(x), double(weight)
    expected = functional.conv2d(dx, dw, None, 1, "same", dilation)
    before = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    geometry = ((1, 1), before, dilation, 1)
    y, to_x, to_weight = (np.full(tuple(a.shape), np.nan, np.float32) for a in (expected, x, weight))
    call("conv2d", x, weight, None, *geometry, y)
    close(y, expected)
    gradient = random(*y.shape, seed=2)
    expected.backward(double(gradient).detach())
    call("conv2d_input_grad", gradient, weight, None, *geometry, to_x)
    call("conv2d_weight_grad", gradient, x, *geometry, to_weight)
    close(to_x, dx.grad, "input")
    close(to_weight, dw.grad, "weight")
