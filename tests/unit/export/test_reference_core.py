"""The reference core has a price for whatever a kernel may do, and more work never takes less time."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch", reason="the exporter's package needs it")

from edge_runtime.export.ir.graph import Argument, Operation, Value
from edge_runtime.export.plan.loads import family_of
from edge_runtime.export.plan.reference_core import PRICES, amounts, nanoseconds, problem_of


def _value(*shape: int) -> Value:
    return Value("v", shape, "activation")


def _convolution(
    kind: str, batch: int, channels: int, outputs: int, side: int, taps: int, stride: int, groups: int
) -> Operation:
    padding = taps // 2
    grid = (side + 2 * padding - taps) // stride + 1
    x, y = _value(batch, channels, side, side), _value(batch, outputs, grid, grid)
    weight = _value(outputs, channels // groups, taps, taps)
    geometry: tuple[Argument, ...] = ((stride, stride), (padding, padding), (1, 1), groups)
    if kind == "conv2d":
        return Operation("conv2d", (x, weight, None, *geometry), (y,))
    if kind == "conv2d_input_grad":
        return Operation("conv2d_input_grad", (y, weight, None, *geometry), (x,))
    return Operation("conv2d_weight_grad", (y, x, *geometry), (weight,))


_KINDS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
_SIZES = list(itertools.product(_KINDS, (1, 7), (3, 48, 160), (32, 96), (1, 2, 9, 40), (1, 3, 5), (1, 2, 3)))


def test_every_convolution_has_a_price() -> None:
    for kind, batch, channels, outputs, side, taps, stride in _SIZES:
        operation = _convolution(kind, batch, channels, outputs, side, taps, stride, 1)
        assert all(amount >= 0 for amount in amounts(operation).values()), operation
        assert nanoseconds(operation) > PRICES["calls"]


def test_groups_and_channels_of_their_own_have_one() -> None:
    for kind, side, taps, stride in itertools.product(_KINDS, (1, 4, 17), (1, 3, 5), (1, 2)):
        for groups in (8, 64):
            operation = _convolution(kind, 2, 64, 64, side, taps, stride, groups)
            assert nanoseconds(operation) > PRICES["calls"]
            assert (family_of(operation) == "depthwise") == (groups == 64)


def test_twice_the_batch_takes_longer_and_not_much_more_than_twice_as_long() -> None:
    for kind, _, channels, outputs, side, taps, stride in _SIZES:
        one, two = (
            nanoseconds(_convolution(kind, batch, channels, outputs, side, taps, stride, 1)) for batch in (8, 16)
        )
        assert one < two < 2.3 * one, (kind, channels, outputs, side, taps, stride)


def test_the_problem_of_an_input_gradient_is_that_of_its_phases_or_of_the_whole_input() -> None:
    whole = problem_of(_convolution("conv2d_input_grad", 2, 32, 64, 8, 3, 2, 1))
    assert (whole.grid, whole.channels, whole.outputs) == ((8, 8), 64, 32)
    assert problem_of(_convolution("conv2d_input_grad", 2, 32, 64, 8, 1, 2, 1)).grid == (4, 4)
    assert problem_of(_convolution("conv2d_weight_grad", 2, 32, 64, 8, 3, 2, 1)).grid == (4, 4)


def test_products_attention_and_elements_have_prices() -> None:
    x, weight, y = _value(4, 10, 32), _value(64, 32), _value(4, 10, 64)
    sizes = (4, 2, 10, 10, 16, 16)
    operations = [
        Operation("linear", (x, weight, None), (y,)),
        Operation("linear_input_grad", (y, weight, None), (x,)),
        Operation("linear_weight_grad", (y, x), (weight,)),
        Operation("matmul", (_value(4, 10, 32), _value(4, 32, 8), False, False), (_value(4, 10, 8),)),
        Operation("attention", (x, x, x, None, sizes), (x,)),
        Operation("attention_backward", (x, x, x, x, None, sizes), (x, x, x)),
        Operation("max_pool2d", (_value(2, 3, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False), (_value(2, 3, 4, 4),)),
        Operation("gelu", (x, 0), (x,)),
        Operation("arithmetic", (_value(2, 3, 8, 8), _value(2, 3, 1, 1), 2), (_value(2, 3, 8, 8),)),
        Operation("expression", (x, x), (x,)),
    ]
    for operation in operations:
        assert nanoseconds(operation) > PRICES["calls"], operation.operator
