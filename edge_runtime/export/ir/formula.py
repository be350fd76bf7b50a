"""What a program computes element by element: a formula of up to two tensors, its derivatives, and its instructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from device_profiles import postfix


@dataclass(frozen=True, slots=True)
class Formula:
    """An operation of `device_profiles/postfix.py` on its parts; `value` is a number, or an operand's place."""

    name: str
    parts: tuple[Formula, ...] = ()
    value: float = 0.0

    def __add__(self, other: Formula | float) -> Formula:
        other = formula(other)
        if self == ZERO or other == ZERO:
            return other if self == ZERO else self
        return applied("add", self, other)

    def __sub__(self, other: Formula | float) -> Formula:
        other = formula(other)
        return self if other == ZERO else applied("subtract", self, other)

    def __mul__(self, other: Formula | float) -> Formula:
        other = formula(other)
        if ZERO in (self, other):
            return ZERO
        if ONE in (self, other):
            return other if self == ONE else self
        return applied("multiply", self, other)

    def __truediv__(self, other: Formula | float) -> Formula:
        return ZERO if self == ZERO else applied("divide", self, formula(other))

    def __neg__(self) -> Formula:
        return ZERO if self == ZERO else applied("negate", self)

    @property
    def operands(self) -> frozenset[int]:
        """The places of the tensors that it reads."""
        if self.name == "operand":
            return frozenset({int(self.value)})
        return frozenset().union(*(part.operands for part in self.parts))

    def moved(self, places: dict[int, int]) -> Formula:
        """With the operands at other places."""
        if self.name == "operand":
            return operand(places[int(self.value)])
        return Formula(self.name, tuple(part.moved(places) for part in self.parts), self.value)

    def derivative(self, place: int) -> Formula:
        """By the operand at a place."""
        if self.name == "operand":
            return ONE if self.value == place else ZERO
        if place not in self.operands:
            return ZERO
        if self.name == "choose":  # what is not chosen does not count, whatever its derivative is
            condition, *sides = self.parts
            slopes = [side.derivative(place) for side in sides]
            return ZERO if slopes == [ZERO, ZERO] else applied("choose", condition, *slopes)
        total = ZERO
        for part, partial in zip(self.parts, _PARTIALS[self.name](*self.parts), strict=True):
            total = total + partial * part.derivative(place)
        return total

    @property
    def code(self) -> tuple[int, ...]:
        """Its instructions, in postfix order."""
        own = postfix.word(self.name, self.value)
        return (*(word for part in self.parts for word in part.code), own)


def applied(name: str, *parts: Formula | float) -> Formula:
    """An operation on formulas and numbers."""
    return Formula(name, tuple(formula(part) for part in parts))


def formula(value: Formula | float) -> Formula:
    """A number as a formula."""
    return value if isinstance(value, Formula) else Formula("number", value=float(value))


def operand(place: int) -> Formula:
    """The tensor at a place."""
    return Formula("operand", value=place)


ZERO, ONE = formula(0.0), formula(1.0)
Partials = tuple[Formula, ...]


def _of_power(a: Formula, b: Formula) -> Partials:
    """As PyTorch has it where the derivative is none: 0 for an exponent of 0, and for a base of 0 that stays 0."""
    if b.name == "number":
        return (ZERO if b.value == 0 else applied("power", a, b.value - 1) * b, ZERO)
    by_base = applied("choose", applied("equal", b, 0.0), 0.0, b * applied("power", a, b - 1.0))
    still = applied("equal", a, 0.0) * (ONE - applied("greater", 0.0, b))
    return by_base, applied("choose", still, 0.0, applied("power", a, b) * applied("logarithm", a))


def _of_larger(a: Formula, b: Formula) -> Partials:
    """Shared by both where they are equal."""
    shared = applied("equal", a, b) * 0.5
    return applied("greater", a, b) + shared, applied("greater", b, a) + shared


def _of_angle(y: Formula, x: Formula) -> Partials:
    squares = y * y + x * x
    return x / squares, -y / squares


def _root(x: Formula) -> Formula:
    return applied("square_root", x)


def _error_slope(x: Formula) -> Formula:
    return applied("exponential", -(x * x)) * (2.0 / math.sqrt(math.pi))


_PARTIALS: dict[str, Callable[..., Partials]] = {
    "add": lambda a, b: (ONE, ONE),
    "subtract": lambda a, b: (ONE, formula(-1.0)),
    "multiply": lambda a, b: (b, a),
    "divide": lambda a, b: (ONE / b, -(a / (b * b))),
    **dict.fromkeys(("greater", "equal"), lambda a, b: (ZERO, ZERO)),
    **dict.fromkeys(("floor", "round"), lambda a: (ZERO,)),
    "larger": _of_larger,
    "smaller": lambda a, b: _of_larger(a, b)[::-1],
    "power": _of_power,
    "angle": _of_angle,
    "negate": lambda a: (formula(-1.0),),
    "absolute": lambda a: (applied("greater", a, 0.0) - applied("greater", 0.0, a),),
    "exponential": lambda a: (applied("exponential", a),),
    "exponential_less_one": lambda a: (applied("exponential", a),),
    "logarithm": lambda a: (ONE / a,),
    "logarithm_of_one_more": lambda a: (ONE / (a + 1.0),),
    "square_root": lambda a: (formula(0.5) / _root(a),),
    "sine": lambda a: (applied("cosine", a),),
    "cosine": lambda a: (-applied("sine", a),),
    "tangent": lambda a: (applied("tangent", a) * applied("tangent", a) + 1.0,),
    "arcsine": lambda a: (ONE / _root(ONE - a * a),),
    "arccosine": lambda a: (-(ONE / _root(ONE - a * a)),),
    "arctangent": lambda a: (ONE / (a * a + 1.0),),
    "hyperbolic_sine": lambda a: (applied("hyperbolic_cosine", a),),
    "hyperbolic_cosine": lambda a: (applied("hyperbolic_sine", a),),
    "hyperbolic_tangent": lambda a: (ONE - applied("hyperbolic_tangent", a) * applied("hyperbolic_tangent", a),),
    "area_sine": lambda a: (ONE / _root(a * a + 1.0),),
    "area_cosine": lambda a: (ONE / _root(a * a - 1.0),),
    "area_tangent": lambda a: (ONE / (ONE - a * a),),
    "error": lambda a: (_error_slope(a),),
    "error_left": lambda a: (-_error_slope(a),),
}
"""The derivatives of an operation by each of its parts."""
