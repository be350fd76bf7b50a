"""Random expressions, and what each instruction is in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from device_profiles.postfix import NAMES, taken
from edge_runtime.export.ir.formula import Formula, applied, operand
from tests.support.geometries.draw import Array, Call, Draw, double, near

Tensors = tuple[torch.Tensor, ...]

MEANINGS: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "greater": lambda a, b: (a > b).double(),
    "equal": lambda a, b: (a == b).double(),
    "larger": torch.maximum,
    "smaller": torch.minimum,
    "power": torch.pow,
    "angle": torch.atan2,
    "choose": lambda c, a, b: torch.where(c != 0, a, b),
    "negate": torch.neg,
    "absolute": torch.abs,
    "exponential": torch.exp,
    "exponential_less_one": torch.expm1,
    "logarithm": torch.log,
    "logarithm_of_one_more": torch.log1p,
    "square_root": torch.sqrt,
    "sine": torch.sin,
    "cosine": torch.cos,
    "tangent": torch.tan,
    "arcsine": torch.asin,
    "arccosine": torch.acos,
    "arctangent": torch.atan,
    "hyperbolic_sine": torch.sinh,
    "hyperbolic_cosine": torch.cosh,
    "hyperbolic_tangent": torch.tanh,
    "area_sine": torch.asinh,
    "area_cosine": torch.acosh,
    "area_tangent": torch.atanh,
    "error": torch.erf,
    "error_left": torch.erfc,
    "floor": torch.floor,
    "round": torch.round,
}
_INSIDE = {"arcsine", "arccosine", "area_tangent"}
_POSITIVE = {"logarithm", "logarithm_of_one_more", "square_root", "power", "divide"}
_EQUALS = {"greater", "equal", "larger", "smaller", "choose", "floor", "round"}


def evaluated(formula: Formula, tensors: Tensors) -> torch.Tensor:
    """A formula of tensors by PyTorch, in their type."""
    if formula.name == "operand":
        return tensors[int(formula.value)]
    if formula.name == "number":
        return torch.tensor(formula.value, dtype=tensors[0].dtype)
    return MEANINGS[formula.name](*(evaluated(part, tensors) for part in formula.parts))


def values_for(draw: Draw, name: str, shape: tuple[int, ...]) -> Array:
    """Numbers that an instruction takes: neither infinite nor undefined, and equal ones where that counts."""
    x = draw.values(*shape)
    if name in _EQUALS:
        return (x * 2).round() / 2
    if name in _INSIDE:
        return x.clip(-0.9, 0.9)
    return abs(x) + (1.1 if name == "area_cosine" else 0.1) if name in {*_POSITIVE, "area_cosine"} else x


def expression(draw: Draw) -> Call:
    """One of the instructions on tensors that are broadcast, and half of the time something added to it."""
    name = draw.pick(sorted(MEANINGS))
    count = taken(NAMES.index(name))
    shape = draw.shape(1, 6)
    more = count < 3 and draw.chance(0.5)
    arrays = [values_for(draw, name, _repeated(draw, shape)) for _ in range(count + more)]
    tensors = tuple(double(array) for array in arrays)
    formula = applied(name, *(operand(place) for place in range(count)))
    size = evaluated(formula, tensors).abs()
    if more:
        size = size + tensors[count].abs()
        formula = formula * -1.0 + operand(count)
    expected = evaluated(formula, tensors).expand(shape)
    arguments = [list(formula.code), *arrays, *[None] * (3 - len(arrays))]
    return Call("expression", arguments, [near(expected, (size + 1).expand(shape))])


def _repeated(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that is broadcast to `shape`, more often than not itself."""
    if draw.chance(0.6):
        return shape
    return tuple(1 if draw.chance(0.5) else extent for extent in shape[draw.whole(0, len(shape) - 1) :])


assert set(MEANINGS) == set(NAMES[2:]), "every instruction has a reference"
