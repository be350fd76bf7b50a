"""Arguments of operators that keep to their rows of the table, and ways of changing them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from device_profiles.operator_expressions import Operands
from device_profiles.operators import Extent, Operator, Parameter, table

SMALL = (1, 1, 2, 2, 3, 4)
_LIKELY: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("E", "QE", "KE", "VE"), (96,)),
    **dict.fromkeys(("H", "W"), (5, 6, 8)),
    **dict.fromkeys(("OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW"), (1, 1, 2)),
    **dict.fromkeys(("F", "C"), (2, 4)),
    **dict.fromkeys(("A1", "A2", "B1", "B2", "M", "N"), (2, 2, 3)),
    **dict.fromkeys(("PH", "PW", "TA", "TB"), (0, 1)),
    "G": (1, 2),
    "P": (4, 5, 6),
}
"""Values of symbols that often go together."""
TELLING = (0, 1, 2, 3, 5, 7, 9, 17, 20, 64, 300, 520, 8193, 65_537, 131_074)
_OTHER = {"float32": "int64", "bfloat16": "int64", "int64": "float32", "bool": "float32"}


@dataclass(frozen=True)
class Tensor:
    """A type and sizes without elements."""

    dtype: str
    shape: tuple[int, ...]


Stack = list[Any]

_BY_HAND: dict[str, Stack] = {
    "permute": [Tensor("float32", (2, 3, 4)), (2, 0, 1), Tensor("float32", (4, 2, 3))],
    "cat": [1, Tensor("float32", (2, 3, 4)), Tensor("float32", (2, 1, 4)), Tensor("float32", (2, 4, 4))],
    "crop": [Tensor("float32", (2, 3, 4)), (0, -1, 1), 0.0, Tensor("float32", (2, 5, 2))],
    "strided_copy": [Tensor("float32", (2, 3, 4)), (12, 4, 2), 0, Tensor("float32", (2, 3, 2))],
    "expression": [
        (0, 256, 1, 2, 4),  # a * (b + 0)
        Tensor("float32", (2, 3, 4)),
        Tensor("float32", (3, 1)),
        Tensor("float32", (4,)),
        Tensor("float32", (2, 3, 4)),
    ],
    "strided_copy_backward": [
        Tensor("float32", (2, 3, 2)),
        (12, 0, 2),
        1,
        Tensor("float32", (2, 3, 4)),
        Tensor("float32", (2, 3, 4)),
    ],
}
"""Where shapes follow from a check by name."""


def symbols_of(operator: Operator) -> list[str]:
    """The symbols that stand alone somewhere, or that integers give values to."""
    names: dict[str, None] = {}
    for parameter in operator.parameters:
        names.update(dict.fromkeys(parameter.symbols or ()))
        for extent in parameter.extents:
            if extent.value is not None and extent.value.symbol is not None:
                names[extent.value.symbol] = None
    return list(names)


def stack_of(operator: Operator, values: dict[str, int]) -> Stack | None:
    """Arguments with these values of the symbols; None where an extent would not be one."""
    operands = Operands(symbols=dict(values))
    stack: Stack = []
    for parameter in operator.parameters:
        argument = _argument(parameter, operands)
        if argument is None:
            return None
        stack.append(argument)
    return stack


def _argument(parameter: Parameter, operands: Operands) -> Any:
    if parameter.kind == "tensor":
        sizes = [_size(extent, operands) for extent in parameter.extents]
        if any(size is None or size < 1 for size in sizes):
            return None
        return Tensor(parameter.dtypes[0], tuple(size for size in sizes if size is not None))
    if parameter.kind == "number":
        return 0.5
    known = [operands.symbols[symbol] for symbol in parameter.symbols or ()]
    if parameter.kind == "ints":
        return tuple(known)
    number = known[0] if known else int(max(1, parameter.low)) if parameter.kind == "int" else 1
    return bool(number) if parameter.kind == "flag" else number


def _size(extent: Extent, operands: Operands) -> int | None:
    return 96 if extent.value is None else operands.evaluate(extent.value)


def valid_values(operator: Operator, choose: random.Random) -> dict[str, int]:
    """Values of the symbols that make a valid stack."""
    symbols = symbols_of(operator)
    for _ in range(5_000):
        values = {symbol: choose.choice(_LIKELY.get(symbol, SMALL)) for symbol in symbols}
        stack = stack_of(operator, values)
        if stack is not None and operator.violation(stack) is None:
            return values
    raise AssertionError(f"no valid arguments of {operator.name} were found")


def valid_stack(name: str, seed: int = 0) -> Stack:
    """Arguments of an operator that keep to its row, with everything there that may be absent."""
    if name in _BY_HAND:
        return list(_BY_HAND[name])
    operator = table().operators[name]
    stack = stack_of(operator, valid_values(operator, random.Random(seed)))
    assert stack is not None
    return stack


def certain_violations(operator: Operator, stack: Stack) -> Iterator[tuple[str, Stack]]:
    """What must be refused whatever else holds: its description and the stack."""
    yield "one argument too few", stack[:-2]
    yield "one argument too many", [*stack, None]
    places = operator.places(len(stack))
    assert places is not None
    for parameter, place in zip(operator.parameters, places, strict=True):
        index = place.start
        for what, value in _wrong_values(parameter, stack[index]):
            yield f"{parameter.name}: {what}", [*stack[:index], value, *stack[index + 1 :]]


def _wrong_values(parameter: Parameter, value: Any) -> Iterator[tuple[str, Any]]:
    yield "another kind", 1 if parameter.kind in ("tensor", "number") else Tensor("float32", (2,))
    if parameter.presence != "nullable":
        yield "absent", None
    if parameter.kind == "tensor":
        yield "another type", Tensor(_OTHER[parameter.dtypes[0]], value.shape)
        if all(extent.kind != "rest" for extent in parameter.extents):
            yield "one dimension more", Tensor(value.dtype, (*value.shape, 1))
    if parameter.kind == "int":
        yield "below its range", int(parameter.low) - 1
        yield "above its range", int(parameter.high) + 1
    if parameter.kind == "number" and parameter.low > -math.inf:
        yield "below its range", parameter.low - 0.25
        yield "above its range", parameter.high * 2 + 1
        yield "no number", math.nan
    if parameter.kind == "ints" and value:
        yield "below its range", (int(parameter.low) - 1, *value[1:])
        yield "above its range", (int(parameter.high) + 1, *value[1:])
        if parameter.symbols is not None:
            yield "one number more", (*value, 1)
            yield "one number less", value[:-1]


def changed(stack: Stack, choose: random.Random) -> Stack:
    """One argument changed at random, which may or may not be refused."""
    index = choose.randrange(len(stack))
    value = stack[index]
    if isinstance(value, Tensor):
        value = choose.choice([None, _resized(value, choose), _resized(value, choose), _resized(value, choose)])
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, tuple) and value:
        place = choose.randrange(len(value))
        other: tuple[int, ...] = choose.choice([(choose.choice(TELLING),), (), (1, 1)])
        value = (*value[:place], *other, *value[place + 1 :])
    elif isinstance(value, int):
        value = choose.choice(TELLING)
    return [*stack[:index], value, *stack[index + 1 :]]


def _resized(tensor: Tensor, choose: random.Random) -> Tensor:
    shape = list(tensor.shape)
    way = choose.randrange(3)
    if way == 0 or not shape:
        shape.insert(choose.randrange(len(shape) + 1), choose.choice((1, 2)))
    elif way == 1:
        shape.pop(choose.randrange(len(shape)))
    else:
        shape[choose.randrange(len(shape))] = choose.choice(TELLING[1:])
    return Tensor(tensor.dtype, tuple(shape))
