"""Resampling, and transposed convolutions made of a convolution's gradients, against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from edge_runtime.device import _operators  # noqa: E402
from edge_runtime.export.operators.resample import LINEAR, LINEAR_CORNERS, NEAREST, NEAREST_EXACT, step  # noqa: E402
from tests.support.kernels import call, close, double, random  # noqa: E402


@pytest.fixture(autouse=True, params=[1, 2], ids=["one-thread", "two-threads"])
def _threads(request: pytest.FixtureRequest) -> None:
    _operators.set_threads(request.param)


MODES: dict[int, dict[str, Any]] = {
    NEAREST: {"mode": "nearest"},
    NEAREST_EXACT: {"mode": "nearest-exact"},
    LINEAR: {"mode": "bilinear", "align_corners": False},
    LINEAR_CORNERS: {"mode": "bilinear", "align_corners": True},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("before", "after"),
    [((5, 7), (10, 14)), ((8, 8), (13, 5)), ((7, 9), (7, 9)), ((1, 1), (4, 3)), ((9, 6), (1, 1)), ((3, 50), (8, 131))],
)
def test_resampling_to_a_size(mode: int, before: tuple[int, int], after: tuple[int, int]) -> None:
    x = random(2, 3, *before)
    dx = double(x)
    expected = functional.interpolate(dx, size=after, **MODES[mode])
    steps = [step(mode, extent, size) for extent, size in zip(before, after, strict=True)]
    y, to_x = np.full((2, 3, *after), np.nan, np.float32), np.full(x.shape, np.nan, np.float32)
    call("resample2d", x, mode, *steps, y)
    close(y, expected)
    gradient = random(*y.shape, seed=1)
    expected.backward(double(gradient).detach())
    call("resample2d_backward", gradient, mode, *steps, to_x)
    close(to_x, dx.grad)


@pytest.mark.parametrize(("mode", "named"), [(NEAREST, "nearest"), (LINEAR, "bilinear")])
def test_resampling_by_a_factor(mode: int, named: str) -> None:
    """The factor counts, not the quotient of the sizes: 1.7 times 5 is 8 positions."""
    x = random(1, 2, 5, 5)
    expected = functional.interpolate(double(x), scale_factor=1.7, mode=named)
    y = np.empty(tuple(expected.shape), np.float32)
    call("resample2d", x, mode, 1 / 1.7, 1 / 1.7, y)
    close(y, expected)


def test_resampling_of_sequences() -> None:
    x = random(2, 3, 11)
    expected = functional.interpolate(double(x), size=17, mode="linear")
    y = np.empty(tuple(expected.shape), np.float32)
    call("resample2d", x, LINEAR, 1.0, 11 / 17, y)
    close(y, expected)


def test_an_infinite_neighbour_stays_out_of_nearest_values() -> None:
    x = np.array([[[[1.0, np.inf, np.nan]]]], np.float32)
    y = np.empty((1, 1, 2, 6), np.float32)
    call("resample2d", x, NEAREST, 0.5, 0.5, y)
    np.testing.assert_array_equal(y[0, 0, 0], [1, 1, np.inf, np.inf, np.nan, np.nan])


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding", "more", "dilation", "groups"),
    [
        ((6, 4), (5, 7), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1),
        ((6, 4), (5, 7), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), 2),
        ((32, 24), (6, 6), (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1),
        ((32, 24), (6, 6), (3, 3), (1, 1), (1, 1), (0, 0), (1, 1), 1),
        ((32, 16), (9, 7), (3, 3), (2, 2), (1, 1), (1, 0), (1, 1), 1),
        ((5, 5), (4, 6), (3, 2), (3, 1), (2, 0), (2, 0), (2, 1), 5),
        ((4, 6), (3, 3), (5, 5), (3, 3), (0, 0), (2, 1), (1, 1), 1),
        ((3, 2), (1, 1), (3, 3), (2, 2), (0, 0), (0, 0), (1, 1), 1),
    ],
)
def test_a_transposed_convolution_is_made_of_a_convolutions_gradients(
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    x, weight = random(3, channels[0], *size), random(channels[0], channels[1] // groups, *kernel, seed=1)
    dx, dw = double(x), double(weight)
    expected = functional.conv_transpose2d(dx, dw, None, stride, padding, more, groups, dilation)
    geometry = (stride, padding, dilation, groups)
    y = np.full(tuple(expected.shape), np.nan, np.float32)
    call("conv2d_input_grad", x, weight, None, *geometry, y)
    close(y, expected)
    gradient = random(*y.shape, seed=2)
    expected.backward(double(gradient).detach())
    to_x, to_weight = np.full(x.shape, np.nan, np.float32), np.full(weight.shape, np.nan, np.float32)
    call("conv2d", gradient, weight, None, *geometry, to_x)
    call("conv2d_weight_grad", x, gradient, *geometry, to_weight)
    close(to_x, dx.grad)
    close(to_weight, dw.grad)
