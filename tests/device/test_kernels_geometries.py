"""Convolutions of every geometry the kernels cut differently: the same bits on any number of threads, near float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from edge_runtime.device import _operators  # noqa: E402

# Sums are built from short ones, so the error stays far below that of one long sum in float32.
TOLERANCE = 3e-6
# Winograd's transforms of 4x4 tiles: 0.5e-6 to 2.0e-6 were measured over many shapes, where PyTorch's own float32
# convolutions are at 0.2e-6 to 0.5e-6, and their weight gradients at 0.2e-6 to 4.5e-6.
WINOGRAD_TOLERANCE = 5e-6


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    batch: int = 1
    inputs: int
    size: tuple[int, int]
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    tolerance: float = TOLERANCE


def _winograd(name: str, **geometry: Any) -> Case:
    return Case(name=f"winograd, {name}", tolerance=WINOGRAD_TOLERANCE, **geometry)


CASES = [
    Case(name="a line longer than a piece", inputs=2, size=(3, 1300), outputs=5),
    Case(name="a column longer than a piece", inputs=2, size=(700, 2), outputs=5),
    Case(name="more small images than a piece holds", batch=45, inputs=6, size=(6, 6), outputs=20),
    Case(name="one pixel an image", batch=37, inputs=9, size=(1, 1), outputs=17, kernel=(1, 1), padding=(0, 0)),
    Case(name="more rows and channels than a block", inputs=600, size=(2, 2), outputs=600),
    Case(name="taps further apart than rows", inputs=3, size=(40, 40), outputs=4, padding=(9, 9), dilation=(9, 9)),
    Case(name="taps that meet only padding", batch=2, inputs=3, size=(6, 6), outputs=3, padding=(24, 24),
         dilation=(24, 24)),
    Case(name="the largest kernel", batch=2, inputs=3, size=(64, 64), outputs=8, kernel=(11, 11), stride=(4, 4),
         padding=(2, 2)),
    Case(name="the widest kernel", inputs=1, size=(9, 9), outputs=1, kernel=(1, 256), padding=(0, 128)),
    Case(name="the tallest kernel", inputs=2, size=(300, 3), outputs=5, kernel=(256, 1), padding=(100, 0)),
    Case(name="patches of images", batch=3, inputs=3, size=(64, 48), outputs=200, kernel=(16, 16), stride=(16, 16),
         padding=(0, 0)),
    Case(name="patches of one large image", inputs=3, size=(224, 224), outputs=40, kernel=(14, 14), stride=(14, 14),
         padding=(0, 0)),
    Case(name="a large kernel at every pixel", batch=2, inputs=5, size=(30, 40), outputs=30, kernel=(16, 16),
         padding=(7, 7)),
    Case(name="a front of sound", batch=2, inputs=1, size=(1, 4000), outputs=33, kernel=(1, 160), stride=(1, 4),
         padding=(0, 80)),
    Case(name="a large depthwise kernel", batch=2, inputs=9, size=(20, 21), outputs=9, kernel=(13, 13),
         padding=(6, 6), groups=9),
    Case(name="the largest depthwise kernel", inputs=4, size=(40, 40), outputs=8, kernel=(16, 16), stride=(2, 3),
         padding=(5, 8), groups=4),
    Case(name="a shortcut", batch=3, inputs=70, size=(8, 8), outputs=130, kernel=(1, 1), stride=(2, 2), padding=(0, 0)),
    Case(name="a stride beyond the kernel", inputs=2, size=(17, 19), outputs=3, kernel=(2, 2), stride=(3, 5)),
    Case(name="unequal sides", batch=2, inputs=3, size=(5, 600), outputs=4, kernel=(1, 7), stride=(1, 3),
         padding=(0, 3)),
    Case(name="groups", batch=2, inputs=12, size=(9, 5), outputs=18, kernel=(3, 2), stride=(2, 1), padding=(1, 0),
         dilation=(1, 2), groups=3),
    Case(name="depthwise", batch=2, inputs=19, size=(7, 7), outputs=19, stride=(2, 2), groups=19),
    Case(name="depthwise, one for one", batch=5, inputs=6, size=(14, 14), outputs=6, groups=6),
    Case(name="depthwise, many small images", batch=64, inputs=3, size=(4, 5), outputs=3, groups=3),
    Case(name="depthwise, several outputs a channel", batch=2, inputs=4, size=(9, 11), outputs=12, kernel=(5, 3),
         stride=(2, 1), padding=(2, 1), groups=4),
    Case(name="depthwise, large images", inputs=2, size=(90, 700), outputs=2, kernel=(7, 7), padding=(3, 3), groups=2),
    Case(name="depthwise, a long signal", batch=2, inputs=3, size=(1, 9000), outputs=3, kernel=(1, 9), stride=(1, 4),
         padding=(0, 4), groups=3),
    Case(name="depthwise, dilated", inputs=3, size=(20, 21), outputs=3, stride=(3, 2), padding=(4, 5), dilation=(4, 5),
         groups=3),
    Case(name="depthwise, taps too far apart for a plane of its own", inputs=2, size=(5, 5), outputs=2,
         padding=(900, 900), dilation=(900, 900), groups=2),
    Case(name="depthwise, vectors of channels", batch=35, inputs=37, size=(4, 5), outputs=37, groups=37),
    Case(name="depthwise, several strips", batch=2, inputs=18, size=(41, 90), outputs=18, groups=18),
    Case(name="depthwise, strips with a stride", batch=3, inputs=33, size=(61, 40), outputs=33, kernel=(5, 5),
         stride=(2, 2), padding=(2, 2), groups=33),
    Case(name="depthwise, a stride one way", batch=2, inputs=16, size=(9, 14), outputs=16, kernel=(3, 5),
         stride=(1, 2), padding=(0, 3), groups=16),
    Case(name="depthwise, outputs without a tap", batch=2, inputs=24, size=(7, 8), outputs=24, kernel=(1, 1),
         stride=(2, 2), padding=(0, 0), groups=24),
    Case(name="depthwise, no padding and columns left over", batch=2, inputs=17, size=(10, 10), outputs=17,
         stride=(2, 2), padding=(0, 0), groups=17),
    Case(name="depthwise, taps that meet only padding", batch=2, inputs=20, size=(6, 6), outputs=20,
         padding=(12, 12), dilation=(12, 12), groups=20),
    Case(name="depthwise, a stride of three", batch=2, inputs=21, size=(13, 11), outputs=21, stride=(3, 3), groups=21),
    _winograd("one block of channels", batch=2, inputs=64, size=(16, 16), outputs=64),
    _winograd("few channels and odd sizes", batch=3, inputs=17, size=(7, 9), outputs=21),
    _winograd("a channel behind a block", batch=2, inputs=65, size=(13, 10), outputs=70),
    _winograd("many blocks and small images", batch=9, inputs=130, size=(4, 4), outputs=200),
    _winograd("images of part of a tile", batch=5, inputs=40, size=(3, 3), outputs=33),
    _winograd("a row wider than a piece", inputs=20, size=(9, 230), outputs=36),
    _winograd("a column longer than a piece", inputs=70, size=(300, 3), outputs=18),
    _winograd("no padding", batch=2, inputs=32, size=(10, 11), outputs=48, padding=(0, 0)),
    _winograd("much padding", batch=2, inputs=24, size=(6, 5), outputs=24, padding=(5, 2)),
    _winograd("groups", batch=2, inputs=48, size=(8, 8), outputs=96, groups=2),
    _winograd("2x2 tiles", batch=32, inputs=80, size=(2, 2), outputs=90),
    _winograd("2x2 tiles in a long row", batch=2, inputs=66, size=(2, 301), outputs=20),
    Case(name="stride 2, one block of channels", batch=2, inputs=64, size=(16, 16), outputs=70, stride=(2, 2)),
    Case(name="stride 2, odd sizes", batch=3, inputs=33, size=(7, 10), outputs=20, stride=(2, 2)),
    Case(name="stride 2, many blocks and small images", batch=21, inputs=130, size=(4, 4), outputs=150, stride=(2, 2)),
    Case(name="stride 2, to one pixel", batch=5, inputs=40, size=(2, 2), outputs=33, stride=(2, 2)),
    Case(name="stride 2, a row wider than a piece", inputs=20, size=(5, 330), outputs=36, stride=(2, 2)),
    Case(name="stride 2, no padding", batch=2, inputs=32, size=(10, 11), outputs=48, stride=(2, 2), padding=(0, 0)),
    Case(name="stride 2, more padding", batch=2, inputs=24, size=(6, 5), outputs=24, stride=(2, 2), padding=(2, 1)),
    Case(name="stride 2, groups", batch=2, inputs=48, size=(8, 8), outputs=96, stride=(2, 2), groups=2),
]  # fmt: skip


def _error(ours: NDArray[np.float32], expected: torch.Tensor) -> float:
    theirs = expected.detach().numpy()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_geometry_is_exact_and_the_same_on_any_number_of_threads(case: Case) -> None:
    random = np.random.default_rng(7)
    x = random.standard_normal((case.batch, case.inputs, *case.size)).astype(np.float32)
    weight = random.standard_normal((case.outputs, case.inputs // case.groups, *case.kernel)).astype(np.float32)
    geometry = (case.stride, case.padding, case.dilation, case.groups)
    x64, weight64 = (torch.from_numpy(a).double().requires_grad_() for a in (x, weight))
    y64 = functional.conv2d(x64, weight64, None, *geometry)
    gradient = random.standard_normal(tuple(y64.shape)).astype(np.float32)
    y64.backward(torch.from_numpy(gradient).double())

    lists = [list(g) if isinstance(g, tuple) else g for g in geometry]
    bits = set()
    for threads in (1, 2, 3):
        _operators.set_threads(threads)
        y, to_x, to_weight = (np.full(a.shape, np.nan, np.float32) for a in (gradient, x, weight))
        assert _operators.call("profl::conv2d.out", [x, weight, None, *lists, y]) == 0
        assert _operators.call("profl::conv2d_input_grad.out", [gradient, weight, None, *lists, to_x]) == 0
        assert _operators.call("profl::conv2d_weight_grad.out", [gradient, x, *lists, to_weight]) == 0
        assert _error(y, y64) < case.tolerance
        assert _error(to_x, x64.grad) < case.tolerance
        assert _error(to_weight, weight64.grad) < case.tolerance
        bits.add((y.tobytes(), to_x.tobytes(), to_weight.tobytes()))
    assert len(bits) == 1


def test_a_kernel_of_more_taps_than_fit_is_refused() -> None:
    x, weight, y = np.ones((1, 1, 17, 17), np.float32), np.ones((1, 1, 17, 17), np.float32), np.ones((1, 1, 1, 1), "f4")
    not_supported = 16
    arguments = [x, weight, None, [1, 1], [0, 0], [1, 1], 1, y]
    assert _operators.call("profl::conv2d.out", arguments) == not_supported


def test_a_nan_reaches_every_pixel_that_sees_it_and_no_other() -> None:
    x, weight, y = np.zeros((1, 2, 9, 9), np.float32), np.ones((5, 2, 3, 3), np.float32), np.empty((1, 5, 9, 9), "f4")
    x[0, 1, 4, 4] = np.nan
    assert _operators.call("profl::conv2d.out", [x, weight, None, [1, 1], [1, 1], [1, 1], 1, y]) == 0
    seen = np.zeros((9, 9), bool)
    seen[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(y), np.broadcast_to(seen, y.shape))


@pytest.mark.parametrize("size", [12, 2])
def test_a_nan_among_many_channels_reaches_every_pixel_that_sees_it_and_at_most_their_tiles(size: int) -> None:
    x, weight = np.ones((2, 40, size, size), np.float32), np.ones((33, 40, 3, 3), np.float32)
    y = np.empty((2, 33, size, size), np.float32)
    x[1, 39, size // 2, size // 2] = np.inf if size == 2 else np.nan
    assert _operators.call("profl::conv2d.out", [x, weight, None, [1, 1], [1, 1], [1, 1], 1, y]) == 0
    seen = np.zeros((size, size), bool)
    seen[max(0, size // 2 - 1) : size // 2 + 2, max(0, size // 2 - 1) : size // 2 + 2] = True
    assert not np.isfinite(y[1])[:, seen].any()
    tile = 4 if size > 2 else 2
    tiles = seen.reshape(size // tile, tile, size // tile, tile).any((1, 3)).repeat(tile, 0).repeat(tile, 1)
    assert np.isfinite(y[1])[:, ~tiles].all()
    assert np.isfinite(y[0]).all()


@pytest.mark.parametrize("size", [(14, 14), (3, 150), (2, 2)])
def test_a_frozen_convolution_of_many_channels_finishes_its_outputs(size: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    x, residual = (random.standard_normal((2, c, *size)).astype(np.float32) for c in (70, 41))
    weight = random.standard_normal((41, 70, 3, 3)).astype(np.float32)
    gamma, beta, mean, bias = (random.standard_normal(41).astype(np.float32) for _ in range(4))
    variance = random.random(41).astype(np.float32) + 0.1
    double = [torch.from_numpy(a).double() for a in (x, weight, bias, mean, variance, gamma, beta, residual)]
    expected = functional.conv2d(*double[:3], padding=1)
    expected = (functional.batch_norm(expected, *double[3:7], eps=1e-5) + double[7]).relu()
    geometry = [[1, 1], [1, 1], [1, 1], 1]
    arguments = [x, weight, bias, gamma, beta, mean, variance, 1e-5, residual, 1, *geometry, residual]
    assert _operators.call("profl::conv2d_frozen.out", arguments) == 0
    assert _error(residual, expected) < WINOGRAD_TOLERANCE
