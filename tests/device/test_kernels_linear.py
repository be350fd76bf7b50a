"""Linear layers over any leading dimensions: near float64, the same bits on any number of threads."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from edge_runtime.device import _operators  # noqa: E402

TOLERANCE = 3e-6

SHAPES = [
    # leading dimensions of x, inputs, outputs
    ((32,), 512, 10),
    ((1,), 1, 1),
    ((5,), 700, 1000),
    ((2, 65), 192, 400),
    ((2, 3, 7), 37, 53),
    ((300,), 3, 97),
]


@pytest.mark.parametrize(("leading", "inputs", "outputs"), SHAPES)
def test_linear_and_its_gradients_are_exact_on_any_number_of_threads(
    leading: tuple[int, ...], inputs: int, outputs: int
) -> None:
    random = np.random.default_rng(3)
    x, gradient = (random.standard_normal((*leading, n)).astype(np.float32) for n in (inputs, outputs))
    weight, bias = (random.standard_normal(s).astype(np.float32) for s in ((outputs, inputs), (outputs,)))
    x64, weight64, bias64 = (torch.from_numpy(a).double().requires_grad_() for a in (x, weight, bias))
    y64 = functional.linear(x64, weight64, bias64)
    y64.backward(torch.from_numpy(gradient).double())
    bits = set()
    for threads in (1, 2, 3):
        _operators.set_threads(threads)
        y, plain, to_x, to_weight = (np.full(a.shape, np.nan, np.float32) for a in (gradient, gradient, x, weight))
        assert _operators.call("profl::linear.out", [x, weight, bias, y]) == 0
        assert _operators.call("profl::linear.out", [x, weight, None, plain]) == 0
        assert _operators.call("profl::linear_input_grad.out", [gradient, weight, to_x]) == 0
        assert _operators.call("profl::linear_weight_grad.out", [gradient, x, to_weight]) == 0
        for ours, expected in ((y, y64), (plain, y64 - bias64), (to_x, x64.grad), (to_weight, weight64.grad)):
            theirs = expected.detach().numpy()
            assert np.abs(ours - theirs).max() / np.abs(theirs).max() < TOLERANCE
        bits.add((y.tobytes(), plain.tobytes(), to_x.tobytes(), to_weight.tobytes()))
    assert len(bits) == 1


def test_a_nan_stays_in_its_row() -> None:
    x, weight, y = np.ones((9, 5), np.float32), np.ones((7, 5), np.float32), np.empty((9, 7), np.float32)
    x[4, 2] = np.nan
    assert _operators.call("profl::linear.out", [x, weight, None, y]) == 0
    assert np.isnan(y[4]).all()
    assert np.isnan(y).sum() == y.shape[1]


def test_outputs_do_not_depend_on_how_many_rows_there_are() -> None:
    random = np.random.default_rng(5)
    x, weight = (random.standard_normal((n, 300)).astype(np.float32) for n in (200, 500))
    whole, part = np.empty((200, 500), np.float32), np.empty((7, 500), np.float32)
    assert _operators.call("profl::linear.out", [x, weight, None, whole]) == 0
    assert _operators.call("profl::linear.out", [x[90:97], weight, None, part]) == 0
    assert part.tobytes() == whole[90:97].tobytes()
    assert math.isfinite(float(whole.sum()))
