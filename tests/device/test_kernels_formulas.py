"""Expressions element by element, their derivatives by the exporter's rules, and elements in order: against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from device_profiles.postfix import DEPTH, LENGTH, NAMES, is_expression, taken, word  # noqa: E402
from edge_runtime.device import _operators  # noqa: E402
from edge_runtime.export.ir.formula import ZERO, Formula, applied, operand  # noqa: E402
from edge_runtime.export.operators.expression import OF_ONE, OF_TWO  # noqa: E402
from tests.support.geometries import complaints  # noqa: E402
from tests.support.geometries.draw import Draw  # noqa: E402
from tests.support.geometries.formulas import MEANINGS, evaluated, values_for  # noqa: E402

_WITHOUT_SLOPE = {"floor", "round", "greater", "equal"}


@pytest.mark.parametrize(
    "operator", ["expression", "top", "top_backward", "running_sum", "to_float", "to_whole", "widen"]
)
def test_a_kernel_computes_what_pytorch_does_in_float64(operator: str) -> None:
    found = [complaint for seed in range(60) for complaint in complaints(operator, seed)]
    assert found == []


@pytest.mark.parametrize("name", sorted(set(MEANINGS) - _WITHOUT_SLOPE))
def test_the_derivative_of_an_instruction_is_that_of_pytorch(name: str) -> None:
    count = taken(NAMES.index(name))
    _holds_derivatives(applied(name, *(operand(place) for place in range(count))), name, count)


@pytest.mark.parametrize("name", sorted({**OF_ONE, **OF_TWO}))
def test_a_formula_and_its_derivatives_fit_the_kernel(name: str) -> None:
    formula = {**OF_ONE, **OF_TWO}[name]
    for derivative in (formula, *(operand(0) * formula.derivative(p).moved({0: 1, 1: 2}) for p in formula.operands)):
        assert is_expression(derivative.code, (True, True, True))


def _holds_derivatives(formula: Formula, name: str, count: int) -> None:
    draw = Draw(len(name))
    arrays = [values_for(draw, name, (300,)) for _ in range(count)]
    leaves = tuple(torch.from_numpy(array).double().requires_grad_() for array in arrays)
    gradients = torch.autograd.grad(evaluated(formula, leaves).sum(), leaves, allow_unused=True)
    for place, expected in enumerate(gradients):
        derivative = formula.derivative(place)
        if expected is None:
            assert derivative == ZERO
            continue
        y = np.empty(300, np.float32)
        arguments: list[Any] = [list(derivative.code), *arrays, *[None] * (3 - count), y]
        assert _operators.call("profl::expression.out", arguments) == 0
        assert np.abs(y - expected.numpy()).max() <= 2e-6 * (1 + np.abs(expected.numpy()).max())


def test_what_is_no_expression_is_known() -> None:
    x, one, add = word("operand", 0), word("number", 1.0), word("add")
    there = (True, False, False)
    assert is_expression((x, one, add), there)
    for code in (
        (),
        (x, one),
        (x, add),
        (word("operand", 1),),
        (word("operand", 3),),
        (x, one, add | 1 << 8),
        (len(NAMES),),
        (*(x,) * (DEPTH + 1), *(add,) * DEPTH),
        (x, *(word("negate"),) * LENGTH),
    ):
        assert not is_expression(code, there)
