"""Comparisons, and what is chosen by them: truth values are activations of 1 and 0, which take no gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from edge_runtime.export.ir.layers import WHOLE_TYPES, CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import (
    ADD,
    EQUAL,
    GREATER,
    MULTIPLY,
    SELECT,
    SUBTRACT,
    arithmetic,
    arithmetic_step,
    as_number,
)
from edge_runtime.export.operators.shape import VIEWS


def _operand(call: CapturedNode, name: str) -> str:
    """An argument as an activation; numbers become a constant of one element."""
    value = call.arguments[name]
    if isinstance(value, torch.fx.Node):
        kind = value.meta["val"].dtype
        if kind not in (torch.float32, torch.bool, *WHOLE_TYPES) and value.name not in call.constants:
            raise NotCovered(f"of {str(kind).removeprefix('torch.')}")
        return as_number(call, name)
    return call.number(name, float(value))


def _negated(call: CapturedNode, truth: str, shape: tuple[int, ...]) -> str:
    return call.step("affine", (truth,), shape, factor=-1.0, offset=1.0)


def _capture_comparison(operation: int, *, turned: bool, negated: bool) -> Callable[[CapturedNode], Layer]:
    """`turned`: the operands change places; `negated`: true where the operation is not (a NaN counts as true)."""

    def capture(call: CapturedNode) -> Layer:
        a, b = _operand(call, "self"), _operand(call, "other")
        if turned:
            a, b = b, a
        if not negated:
            return arithmetic(call, operation, a, b)
        truth = arithmetic_step(call, operation, a, b, call.output_shape)
        return call.layer("affine", (truth,), factor=-1.0, offset=1.0)

    return capture


def _capture_and(call: CapturedNode) -> Layer:
    _refuse_numbers(call)
    return arithmetic(call, MULTIPLY, _operand(call, "self"), _operand(call, "other"))


def _capture_or(call: CapturedNode) -> Layer:
    """Not (not a and not b)."""
    _refuse_numbers(call)
    a, b = (_negated(call, _operand(call, name), call.shape(name)) for name in ("self", "other"))
    neither = arithmetic_step(call, MULTIPLY, a, b, call.output_shape)
    return call.layer("affine", (neither,), factor=-1.0, offset=1.0)


def _capture_not(call: CapturedNode) -> Layer:
    _refuse_numbers(call)
    return call.layer("affine", (_operand(call, "self"),), factor=-1.0, offset=1.0)


def _capture_isnan(call: CapturedNode) -> Layer:
    """What is not equal to itself."""
    x = _operand(call, "self")
    same = arithmetic_step(call, EQUAL, x, x, call.output_shape)
    return call.layer("affine", (same,), factor=-1.0, offset=1.0)


def _refuse_numbers(call: CapturedNode) -> None:
    for name in ("self", "other"):
        value = call.arguments.get(name)
        if isinstance(value, torch.fx.Node) and value.meta["val"].dtype != torch.bool:
            raise NotCovered("of other than truth values")


def _capture_where(call: CapturedNode) -> Layer:
    if "self" not in call.arguments:
        raise NotCovered("the places of what is true, whose number nobody knows beforehand")
    return _chosen(call, "condition", "self", "other")


def _capture_masked_fill(call: CapturedNode) -> Layer:
    return _chosen(call, "mask", "value", "self")


def _chosen(call: CapturedNode, condition: str, where_true: str, where_false: str) -> Layer:
    """The elements of one argument where the condition holds, else those of the other.

    An element that is not chosen does not count, whatever it is: 0 times infinity would be no number.
    """
    shape, known = call.output_shape, call.constant(condition)
    if known is not None:
        known = call.alike(known)
        truth = call.kept(f"{condition}_holds", known.to(torch.float32))
        otherwise = call.kept(f"{condition}_fails", (~known.bool()).to(torch.float32))
    else:
        truth = _operand(call, condition)
        otherwise = _negated(call, truth, call.shape(condition))
    sides: list[tuple[str, str | None]] = []
    for name, chosen, holds in ((where_true, truth, True), (where_false, otherwise, False)):
        value = call.arguments[name]
        fixed = call.constant(name) if isinstance(value, torch.fx.Node) else torch.tensor(float(value))
        if fixed is not None and not bool(fixed.any()):
            continue
        if fixed is not None and known is not None:
            there = known.bool() if holds else ~known.bool()
            sides.append((call.kept(f"{name}_chosen", torch.where(there, fixed.float(), 0.0)), None))
        else:
            sides.append((_operand(call, name), chosen))
    if not sides:
        raise NotCovered("of nothing but zeros")
    parts = [x if chosen is None else arithmetic_step(call, SELECT, x, chosen, shape) for x, chosen in sides]
    if len(parts) == 2:
        return arithmetic(call, ADD, parts[0], parts[1])
    return call.layer("reshape", (parts[0],))


def _capture_sign(call: CapturedNode) -> Layer:
    """1, 0 or -1, without a gradient."""
    x, zero, shape = call.activation("self"), call.number("zero", 0.0), call.output_shape
    above, below = (arithmetic_step(call, GREATER, a, b, shape) for a, b in ((x, zero), (zero, x)))
    return arithmetic(call, SUBTRACT, above, below)


def maxima(call: CapturedNode, x: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> str:
    """Steps to the largest elements of `x` over `dims`, [kept dimensions..., 1]."""
    kept = [d for d in range(len(shape)) if d not in dims]
    order = (*kept, *dims)
    if order != tuple(range(len(shape))):
        x = call.step("permute", (x,), tuple(shape[d] for d in order), dims=order)
    count, outer = math.prod(shape[d] for d in dims), [shape[d] for d in kept]
    images = (outer[0] if outer else 1, math.prod(outer[1:]), 1, count)
    if count > 65535:
        raise NotCovered("over more than 65535 elements")
    x = call.step("reshape", (x,), images)
    once: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    x = call.step("max_pool2d", (x,), (*images[:3], 1), kernel=(1, count), **once)
    return call.step("reshape", (x,), (*outer, 1))


TRUTHS: dict[str, Callable[[CapturedNode], Layer]] = {
    "gt": _capture_comparison(GREATER, turned=False, negated=False),
    "lt": _capture_comparison(GREATER, turned=True, negated=False),
    "ge": _capture_comparison(GREATER, turned=True, negated=True),
    "le": _capture_comparison(GREATER, turned=False, negated=True),
    "eq": _capture_comparison(EQUAL, turned=False, negated=False),
    "ne": _capture_comparison(EQUAL, turned=False, negated=True),
    "isnan": _capture_isnan,
    **dict.fromkeys(("logical_and", "bitwise_and", "__and"), _capture_and),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or"), _capture_or),
    **dict.fromkeys(("logical_not", "bitwise_not"), _capture_not),
}
"""Operators with truth values as their results."""
CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **TRUTHS,
    "where": _capture_where,
    "masked_fill": _capture_masked_fill,
    "sign": _capture_sign,
}
TAKES_TRUTHS = frozenset({*TRUTHS, "where", "masked_fill", "mul", "sum", "scaled_dot_product_attention", *VIEWS})
"""Operators that may read truth values which the model computes."""
EMITTERS: dict[str, Callable[..., object]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
