"""Activations, arithmetic, sums and rearrangement against PyTorch in float64."""

from __future__ import annotations

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


FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "none": (lambda x: x * 1.0, 0.0),
    "relu": (functional.relu, 0.0),
    "relu6": (functional.relu6, 0.0),
    "leaky_relu": (lambda x: functional.leaky_relu(x, 0.2), 0.2),
    "silu": (functional.silu, 0.0),
    "hardswish": (functional.hardswish, 0.0),
    "hardsigmoid": (functional.hardsigmoid, 0.0),
    "sigmoid": (torch.sigmoid, 0.0),
    "tanh": (torch.tanh, 0.0),
    "mish": (functional.mish, 0.0),
    "softplus": (lambda x: functional.softplus(x, 1.5), 1.5),
    "elu": (lambda x: functional.elu(x, 0.7), 0.7),
    "absolute": (torch.abs, 0.0),
    "exponential": (torch.exp, 0.0),
    "logarithm": (torch.log, 0.0),
    "square_root": (torch.sqrt, 0.0),
    "inverse_root": (torch.rsqrt, 0.0),
    "reciprocal": (torch.reciprocal, 0.0),
    "at_least": (lambda x: x.clamp(min=0.3), 0.3),
    "at_most": (lambda x: x.clamp(max=-0.2), -0.2),
}


def _in_domain(name: str, x: np.ndarray) -> np.ndarray:
    """Where PyTorch's result is a finite number."""
    if name in ("logarithm", "square_root", "inverse_root", "reciprocal"):
        return np.abs(x) + np.float32(1e-2)
    return np.minimum(x, np.float32(10)) if name == "exponential" else x


def test_every_activation_is_tested() -> None:
    assert set(FUNCTIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_and_its_gradient(name: str) -> None:
    function, parameter = FUNCTIONS[name]
    edges = np.array([0, -0.0, 6, 1e-8, -1e-8, 0.3, 50, -50, 90, -90, 3e38, -3e38], np.float32)
    x = _in_domain(name, np.concatenate([4 * random(70_001), edges]))
    dx = double(x)
    expected = function(dx)
    y = x.copy()
    call("activation", y, ACTIVATIONS[name], parameter, y)
    small = np.abs(x) < 100
    close(y[small], expected[torch.from_numpy(small)], tolerance=2e-7 if name != "none" else 1e-9)
    np.testing.assert_allclose(y[~small], expected[torch.from_numpy(~small)].detach().numpy(), rtol=1e-6, atol=1e-6)
    gradient = random(len(x), seed=1)
    expected.backward(double(gradient).detach())
    to_x = gradient.copy()
    call("activation_backward", to_x, x, ACTIVATIONS[name], parameter, to_x)
    close(to_x, dx.grad, tolerance=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_nan_goes_through_and_a_small_value_keeps_its_digits(name: str) -> None:
    function, parameter = FUNCTIONS[name]
    x = _in_domain(name, np.array([np.nan, 1e-4, -1e-4], np.float32))
    y = np.empty_like(x)
    call("activation", x, ACTIVATIONS[name], parameter, y)
    assert np.isnan(y[0])
    np.testing.assert_allclose(y[1:], function(double(x[1:])).detach().numpy(), rtol=5e-7)


def test_a_root_may_have_no_gradient_at_zero() -> None:
    x, gradient = np.array([0, 4], np.float32), np.array([3, 2], np.float32)
    to_x = np.empty_like(x)
    call("activation_backward", gradient, x, ACTIVATIONS["square_root"], 1.0, to_x)
    assert to_x.tolist() == [0.0, 0.5]
    call("activation_backward", gradient, x, ACTIVATIONS["square_root"], 0.0, to_x)
    assert to_x.tolist() == [np.inf, 0.5]


def test_what_is_not_chosen_does_not_count_and_comparisons_say_no_to_what_is_no_number() -> None:
    a, b = np.array([np.inf, np.nan, 2, 2], np.float32), np.array([0, 0, 1, 2], np.float32)
    y = np.empty_like(a)
    for operation, expected in ((4, [0, 0, 2, 2]), (5, [1, 0, 1, 0]), (6, [0, 0, 0, 1])):
        call("arithmetic", a, b, operation, y)
        assert y.tolist() == expected


OPERATIONS = {0: torch.add, 1: torch.sub, 2: torch.mul, 3: torch.div}
BROADCASTS = [
    ((70_001,), (70_001,)),
    ((3, 5, 7, 7), (3, 5, 1, 1)),
    ((3, 5, 1, 1), (3, 5, 7, 7)),
    ((4, 6, 9), (6, 1)),
    ((4, 6, 9), (9,)),
    ((2, 1, 5), (2, 4, 1)),
    ((2, 3, 4), (1,)),
    ((2, 3, 1, 4, 1), (2, 1, 5, 4, 6)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_arithmetic_broadcasts_and_sums_back(operation: int, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = random(*shapes[0]), random(*shapes[1], seed=1)
    b = np.where(np.abs(b) < 0.1, np.float32(0.5), b)
    da, db = double(a), double(b)
    expected = OPERATIONS[operation](da, db)
    y = a.copy() if a.shape == tuple(expected.shape) else np.empty(tuple(expected.shape), np.float32)
    call("arithmetic", y if a.shape == y.shape else a, b, operation, y)  # over its first operand where that fits
    close(y, expected, tolerance=3e-7)
    gradient = random(*y.shape, seed=2)
    (da * db).backward(double(gradient).detach())
    for own, other, grad in ((a, b, da.grad), (b, a, db.grad)):
        summed = np.full_like(own, np.nan)
        call("sum_to", gradient, np.ascontiguousarray(other), 2.0, summed)
        close(summed, 2 * grad)
    plain = np.full_like(b, np.nan)
    call("sum_to", gradient, None, -1.0, plain)
    close(plain, -double(gradient).sum_to_size(b.shape))


@pytest.mark.parametrize(
    ("shape", "kept"),
    [((5, 7, 33), (5, 1, 33)), ((3, 4, 5, 6), (3, 1, 5, 1)), ((2, 300, 3), (2, 300, 1)), ((600, 2, 1), (1, 2, 1))],
)
def test_a_mean_and_its_gradient(shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    x, y, back = random(*shape), np.empty(kept, np.float32), np.empty(shape, np.float32)
    factor = float(np.prod(kept) / np.prod(shape))
    call("sum_to", x, None, factor, y)
    close(y, double(x).sum_to_size(kept) * factor)
    call("broadcast", y, factor, back)
    close(back, (double(y) * factor).expand(shape))


def test_a_tensor_times_a_number_plus_a_number() -> None:
    x = random(70_001)
    y = x.copy()
    call("affine", y, -0.5, 3.0, y)
    close(y, 3.0 - 0.5 * double(x), tolerance=2e-7)


@pytest.mark.parametrize("dims", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (0, 1, 2)])
def test_permutation(dims: tuple[int, ...]) -> None:
    x = random(5, 40, 33)
    y = np.empty(tuple(x.shape[d] for d in dims), np.float32)
    call("permute", x, dims, y)
    np.testing.assert_array_equal(y, x.transpose(dims))


def test_shuffled_channels() -> None:
    x, y = random(3, 2, 6, 4, 5), np.empty((3, 6, 2, 4, 5), np.float32)
    call("permute", x, (0, 2, 1, 3, 4), y)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1, 3, 4))


@pytest.mark.parametrize("sizes", [(3, 1, 6), (1, 2) * 30], ids=len)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_concatenation(dim: int, sizes: tuple[int, ...]) -> None:
    parts = [random(*(n if d == dim else 4 for d in range(3)), seed=i) for i, n in enumerate(sizes)]
    expected = np.concatenate(parts, dim)
    y = np.empty_like(expected)
    call("cat", dim, *parts, y)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("offsets", "shape"),
    [
        ((0, 2, 0), (3, 4, 9)),
        ((0, -1, -2), (3, 9, 13)),
        ((0, 3, -4), (3, 2, 5)),
        ((0, 0, 20), (3, 7, 4)),
        ((0, 9, 0), (3, 2, 9)),
    ],
)
def test_cropping_and_padding(offsets: tuple[int, ...], shape: tuple[int, ...]) -> None:
    x, y = random(3, 7, 9), np.empty(shape, np.float32)
    call("crop", x, offsets, 0.5, y)
    expected = np.full(shape, np.float32(0.5))
    for place in np.ndindex(*shape):
        source = tuple(i + o for i, o in zip(place, offsets, strict=True))
        if all(0 <= i < extent for i, extent in zip(source, x.shape, strict=True)):
            expected[place] = x[source]
    np.testing.assert_array_equal(y, expected)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, gate = random(9, 30, 17, 17), random(9, 30, 1, 1)
    bits = set()
    for threads in (1, 2, 3):
        _operators.set_threads(threads)
        y, summed, columns = np.empty_like(x), np.empty_like(gate), np.empty((17,), np.float32)
        call("arithmetic", x, gate, 2, y)
        call("sum_to", x, y, 1.0, summed)
        call("sum_to", x, None, 1.0, columns)
        bits.add((y.tobytes(), summed.tobytes(), columns.tobytes()))
    assert len(bits) == 1
