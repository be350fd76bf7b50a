"""Random geometries of every kernel against PyTorch in float64, with guard values around everything.

A failure names what shows it again: `python -m tools.fuzz.geometries --operator NAME --seed NUMBER`. How many more were
tried by hand stands in docs/security.md.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from device_profiles.operators import table  # noqa: E402
from edge_runtime.device import _operators  # noqa: E402
from tests.support.geometries import GENERATORS, complaints  # noqa: E402
from tests.support.geometries.draw import Call, exact  # noqa: E402
from tests.support.geometries.harness import Guarded, try_call  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CALLS = 15
SEVERAL_WAYS = 60
"""Of convolutions, which choose among many ways to compute the same."""
OTHER_SETS = 6


def test_every_operator_has_a_generator_and_no_other_has() -> None:
    assert set(table().operators) == set(GENERATORS)


@pytest.mark.parametrize("operator", GENERATORS)
def test_random_geometries(operator: str) -> None:
    count = SEVERAL_WAYS if operator.startswith("conv2d") else CALLS
    found = [complaint for seed in range(count) for complaint in complaints(operator, seed)]
    assert not found, "\n".join(found)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines have one set of kernels")
@pytest.mark.parametrize("instruction_set", ["baseline", "avx2"])
def test_random_geometries_of_a_lesser_processor(instruction_set: str) -> None:
    environment = {**os.environ, "PROFL_INSTRUCTION_SET": instruction_set, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.fuzz.geometries", "--count", str(OTHER_SETS), "--seed", "1000"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_guard_values_show_what_is_written_and_read_outside() -> None:
    for dtype in (np.float32, np.int64, np.uint16, np.bool_):
        guarded = Guarded((3, 1), dtype, guards=True)
        guarded.array[...] = 1
        assert guarded.written_around() is None
        whole = guarded.array.base
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        first = (whole.size - guarded.array.nbytes) // 2
        for place, side in ((first - 1, "before"), (first + guarded.array.nbytes, "behind")):
            kept, whole[place] = whole[place], 0
            assert guarded.written_around() == f"writes 1 bytes {side}"
            whole[place] = kept
    # A result that is too small for what the kernel writes, and an argument that is too small for what it reads.
    x = np.ones((4, 5), np.float32)
    assert any("behind result 0" in what for what in try_call(Call("add", [x, x, False], [exact(x[:3] * 2)])))
    assert any("result 0 is wrong" in what for what in try_call(Call("add", [x, x[:3], False], [exact(x * 2)])))


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (3, 4)])
@pytest.mark.parametrize("size", [(8, 1), (1, 8), (1, 1)])
def test_the_gradient_of_a_1x1_kernel_stays_in_one_column(size: tuple[int, int], stride: tuple[int, int]) -> None:
    """The stride of a direction with one output means nothing; it was once kept where planes became rows."""
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((5, 4, 1, 1), np.float32), torch.zeros((2, 4, *size)).double().requires_grad_()
    y = torch.nn.functional.conv2d(x, torch.from_numpy(weight).double(), stride=stride)
    gradient = random.standard_normal(tuple(y.shape), np.float32)
    y.backward(torch.from_numpy(gradient).double())
    to_x = Guarded((2, 4, *size), np.float32, guards=True)
    arguments = [gradient, weight, None, list(stride), [0, 0], [1, 1], 1, to_x.array]
    assert _operators.call("profl::conv2d_input_grad.out", arguments) == 0
    assert to_x.written_around() is None
    np.testing.assert_allclose(to_x.array, x.grad.numpy(), atol=1e-6)


def test_a_depthwise_gradient_that_no_tap_reaches_is_zero() -> None:
    """One output row and column, whose only tap lies in the padding of another phase."""
    weight, gradient = np.ones((32, 1, 1, 1), np.float32), np.ones((2, 32, 2, 2), np.float32)
    to_x = Guarded((2, 32, 1, 1), np.float32, guards=True)
    arguments = [gradient, weight, None, [2, 2], [1, 1], [1, 1], 32, to_x.array]
    assert _operators.call("profl::conv2d_input_grad.out", arguments) == 0
    assert to_x.written_around() is None
    assert (to_x.array == 0).all()


NOT_SUPPORTED = 16


def test_what_the_workspace_does_not_hold_is_refused() -> None:
    columns = (1 << 20) // 12 + 1
    x, y = np.ones((1, 1, 1), np.float32), np.ones((1, 1, columns), np.float32)
    assert _operators.call("profl::resample2d.out", [x, 0, 1.0, 1 / columns, y]) == NOT_SUPPORTED
    assert _operators.call("profl::resample2d_backward.out", [y, 0, 1.0, 1 / columns, x]) == NOT_SUPPORTED
    wide = np.ones((1, (1 << 16) + 1), np.float32)
    arguments = [wide, wide.copy(), None, None, 1, 1e-5, 0, wide.copy(), None, None]
    assert _operators.call("profl::group_norm_backward.out", arguments) == NOT_SUPPORTED
    q, v = np.ones((1, 1, 1, 4), np.float32), np.ones((1, 1, 1, 513), np.float32)
    view, values = [0, 4, 4, 4], [0, 513, 513, 513]
    shared = [[1, 1, 1, 1, 4, 513], view, view, values, [0, 0, 0, 0], values, 1.0, False, 0.0, 0]
    assert _operators.call("profl::attention.out", [q, q, v, None, None, *shared, v.copy(), None]) == NOT_SUPPORTED
    sums, to = np.ones((1, 1, 1), np.float32), [q.copy(), q.copy(), v.copy()]
    arguments = [v, q, q, v, None, None, v, sums, *shared, *to]
    assert _operators.call("profl::attention_backward.out", arguments) == NOT_SUPPORTED
    deep = np.ones([1] * 9, np.float32)
    assert _operators.call("profl::strided_copy.out", [deep, [1] * 9, 0, deep.copy()]) == NOT_SUPPORTED
    assert _operators.call("profl::strided_copy_backward.out", [deep, [1] * 9, 0, None, deep.copy()]) == NOT_SUPPORTED


@pytest.mark.parametrize("step", [-1.0, float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("way", range(4))
def test_a_step_that_leads_outside_of_the_input_reads_its_edges(way: int, step: float) -> None:
    x, y = Guarded((1, 1, 3, 5), np.float32, guards=True), Guarded((1, 1, 6, 10), np.float32, guards=True)
    x.array[...] = 2.0
    y.array[...] = 1.0
    assert _operators.call("profl::resample2d.out", [x.array, way, step, step, y.array]) == 0
    if way in (0, 1):
        assert (y.array == 2.0).all()
    assert _operators.call("profl::resample2d_backward.out", [y.array, way, step, step, x.array]) == 0
    assert x.written_around() is None and y.written_around() is None
