"""A weight gradient that goes straight into the SGD update has the bits of the two operators it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.device import _operators

HYPERPARAMETERS = np.array([0.05, 0.9, 5e-4, 0.0], np.float32)
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


@pytest.mark.parametrize("nesterov", [0.0, 1.0])
@pytest.mark.parametrize("momentum", MOMENTA, ids=["none", "float32", "bfloat16"])
def test_a_proximal_term_joins_the_gradient(momentum: type | None, nesterov: float) -> None:
    parameter, gradient, start = (_random(3, 1237, seed=seed) for seed in (1, 2, 3))
    buffer = _buffer(parameter.shape, momentum)
    rate, factor, decay, mu = *HYPERPARAMETERS[:3].tolist(), 0.25
    filled = np.array([rate, factor, decay, nesterov, mu], np.float32)
    before = None if buffer is None else _as_float(buffer).astype(np.float64)
    exact = gradient + decay * parameter.astype(np.float64) + mu * (parameter.astype(np.float64) - start)
    velocity = exact if before is None else factor * before + exact
    step = exact + factor * velocity if nesterov and before is not None else velocity
    new, new_buffer = parameter.copy(), None if buffer is None else buffer.copy()
    _call("sgd", new, gradient, filled, new_buffer, start, new, new_buffer)
    np.testing.assert_allclose(new, parameter - rate * step, rtol=0, atol=2e-6)
    if new_buffer is not None:
        tolerance = 2e-6 if momentum is np.float32 else 2**-7
        np.testing.assert_allclose(_as_float(new_buffer), velocity, rtol=tolerance, atol=2e-6)


def _as_float(buffer: np.ndarray) -> np.ndarray:
    return buffer if buffer.dtype == np.float32 else (buffer.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("momentum", MOMENTA, ids=["none", "float32", "bfloat16"])
def test_fused_updates_with_a_proximal_term_equal_separate_ones(momentum: type | None) -> None:
    gradient, x = _random(32, 40, seed=1), _random(32, 72, seed=2)
    weight, start = _random(40, 72, seed=3), _random(40, 72, seed=4)
    filled = np.append(HYPERPARAMETERS, np.float32(0.25))
    weight_gradient, buffer = np.empty_like(weight), _buffer(weight.shape, momentum)
    _call("linear_weight_grad", gradient, x, weight_gradient)
    expected, ours = weight.copy(), weight.copy()
    buffers = [None if buffer is None else buffer.copy() for _ in range(2)]
    _call("sgd", expected, weight_gradient, filled, buffers[0], start, expected, buffers[0])
    _call("linear_weight_grad_sgd", gradient, x, ours, filled, buffers[1], start, ours, buffers[1])
    assert ours.tobytes() == expected.tobytes() != weight.tobytes()
    images, of_outputs = _random(2, 8, 9, 7, seed=5), _random(2, 40, 9, 7, seed=6)
    weight, start = _random(40, 8, 3, 3, seed=3), _random(40, 8, 3, 3, seed=4)
    weight_gradient, geometry = np.empty_like(weight), ([1, 1], [1, 1], [1, 1], 1)
    _call("conv2d_weight_grad", of_outputs, images, *geometry, weight_gradient)
    expected, ours, buffer = weight.copy(), weight.copy(), _buffer(weight.shape, momentum)
    buffers = [None if buffer is None else buffer.copy() for _ in range(2)]
    _call("sgd", expected, weight_gradient, filled, buffers[0], start, expected, buffers[0])
    _call("conv2d_weight_grad_sgd", of_outputs, images, *geometry, ours, filled, buffers[1], start, ours, buffers[1])
    assert ours.tobytes() == expected.tobytes() != weight.tobytes()


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
