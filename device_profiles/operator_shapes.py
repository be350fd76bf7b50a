"""Checks of the table of operators that have a name, because their tensors may have any number of dimensions.

`csrc/operators/operator_shapes.cpp` has the same; a test holds both against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from device_profiles import postfix


def _broadcasts(source: list[Any], target: list[Any]) -> bool:
    """The source's dimensions are, from the last, those of the target or 1. Nothing broadcasts to anything."""
    if source[0] is None:
        return True
    own, wanted = source[0].shape, target[0].shape
    behind = wanted[len(wanted) - len(own) :]
    return len(own) <= len(wanted) and all(a in (1, b) for a, b in zip(own, behind, strict=True))


def _permutes(x: list[Any], dimensions: list[Any], y: list[Any]) -> bool:
    order, shape = dimensions[0], x[0].shape
    return sorted(order) == list(range(len(shape))) and y[0].shape == tuple(shape[d] for d in order)


NOTED = 320
"""Tensors of a call times their dimensions, and one more each: ExecuTorch's room for what it notes of them."""


def _concatenates(dimension: list[Any], parts: list[Any], y: list[Any]) -> bool:
    along, whole = dimension[0], y[0].shape
    if (len(parts) + 1) * (len(whole) + 1) > NOTED:
        return False
    if along >= len(whole) or any(len(part.shape) != len(whole) for part in parts):
        return False
    others = {part.shape[:along] + part.shape[along + 1 :] for part in parts}
    return others == {whole[:along] + whole[along + 1 :]} and sum(part.shape[along] for part in parts) == whole[along]


def _strided(dense: list[Any], strides: list[Any], offset: list[Any], viewed: list[Any]) -> bool:
    """The elements of the dense tensor lie in the viewed one at the offset and multiples of the strides."""
    shape, steps = dense[0].shape, strides[0]
    if len(shape) != len(steps):
        return False
    last = offset[0] + sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
    return bool(last < math.prod(viewed[0].shape))


def _is_expression(code: list[Any], *operands: list[Any]) -> bool:
    return postfix.is_expression(code[0], [operand[0] is not None for operand in operands])


CHECKS: dict[str, Callable[..., bool]] = {
    "broadcasts": _broadcasts,
    "permutes": _permutes,
    "concatenates": _concatenates,
    "strided": _strided,
    "is_expression": _is_expression,
}
"""Each is given the arguments of the parameters that the rule names, as lists: a repeated one has several."""
