"""A weight gradient that goes straight into the SGD update has the bits of the two operators it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.device import _operators

HYPERPARAMETERS = np.array([0.05, 0.9, 5e-4], np.float32)
MOMENTA = [None, np.float32, np.uint16]

CONVOLUTIONS = [
    # batch, channels, height, width, outputs, kernel, stride, padding, groups
    (3, 5, 9, 7, 11, 3, 1, 1, 1),
    (2, 70, 8, 8, 200, 3, 2, 1, 1),
    (32, 64, 4, 4, 64, 3, 1, 1, 1),
    (2, 8, 6, 6, 12, 1, 2, 0, 2),
    (2, 19, 9, 9, 19, 3, 1, 1, 19),
    (1, 6, 20, 20, 12, 5, 2, 2, 6),
    (2, 600, 1, 1, 20, 1, 1, 0, 1),
]


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _buffer(shape: tuple[int, ...], dtype: type | None) -> np.ndarray | None:
    """A momentum; a bfloat16 one is the upper halves of floats."""
    if dtype is None:
        return None
    values = _random(*shape, seed=3)
    return values if dtype is np.float32 else (values.view(np.uint32) >> 16).astype(np.uint16)


def _call(name: str, *arguments: object) -> None:
    assert _operators.call(f"profl::{name}.out", list(arguments)) == 0


@pytest.mark.parametrize("momentum", MOMENTA, ids=["none", "float32", "bfloat16"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_a_fused_convolution_update_equals_gradient_then_sgd(case: tuple[int, ...], momentum: type | None) -> None:
    n, c, h, w, o, kernel, stride, padding, groups = case
    x, weight = _random(n, c, h, w, seed=1), _random(o, c // groups, kernel, kernel, seed=2)
    buffer = _buffer(weight.shape, momentum)
    size = tuple((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
    gradient = _random(n, o, *size, seed=4)
    geometry = ([stride] * 2, [padding] * 2, [1, 1], groups)
    expected, expected_buffer = weight.copy(), None if buffer is None else buffer.copy()
    weight_gradient = np.empty_like(weight)
    _operators.set_threads(1)
    _call("conv2d_weight_grad", gradient, x, *geometry, weight_gradient)
    _call("sgd", expected, weight_gradient, HYPERPARAMETERS, expected_buffer, expected, expected_buffer)
    assert expected.tobytes() != weight.tobytes()
    for threads in (1, 2, 3):
        _operators.set_threads(threads)
        ours, ours_buffer = weight.copy(), None if buffer is None else buffer.copy()
        _call("conv2d_weight_grad_sgd", gradient, x, *geometry, ours, HYPERPARAMETERS, ours_buffer, ours, ours_buffer)
        assert ours.tobytes() == expected.tobytes()
        if ours_buffer is not None and expected_buffer is not None:
            assert ours_buffer.tobytes() == expected_buffer.tobytes()


@pytest.mark.parametrize("momentum", MOMENTA, ids=["none", "float32", "bfloat16"])
@pytest.mark.parametrize(("leading", "inputs", "outputs"), [((32,), 512, 10), ((2, 65), 100, 500), ((3,), 7, 5)])
def test_a_fused_linear_update_equals_gradient_then_sgd(
    leading: tuple[int, ...], inputs: int, outputs: int, momentum: type | None
) -> None:
    gradient, x = _random(*leading, outputs, seed=1), _random(*leading, inputs, seed=2)
    weight = _random(outputs, inputs, seed=3)
    buffer = _buffer(weight.shape, momentum)
    expected, expected_buffer = weight.copy(), None if buffer is None else buffer.copy()
    weight_gradient = np.empty_like(weight)
    _operators.set_threads(1)
    _call("linear_weight_grad", gradient, x, weight_gradient)
    _call("sgd", expected, weight_gradient, HYPERPARAMETERS, expected_buffer, expected, expected_buffer)
    for threads in (1, 2, 3):
        _operators.set_threads(threads)
        ours, ours_buffer = weight.copy(), None if buffer is None else buffer.copy()
        _call("linear_weight_grad_sgd", gradient, x, ours, HYPERPARAMETERS, ours_buffer, ours, ours_buffer)
        assert ours.tobytes() == expected.tobytes()
        if ours_buffer is not None and expected_buffer is not None:
            assert ours_buffer.tobytes() == expected_buffer.tobytes()
