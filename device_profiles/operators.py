"""The table of operators, `data/operators.txt`: what each takes and puts out, and whether an instruction keeps to it.

The runtime has the same table compiled in and reads it in `csrc/operators/operator_row.cpp`; a test holds both readers
against each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, cast

from device_profiles.operator_expressions import FUNCTIONS, Expression, Operands, parse
from device_profiles.operator_shapes import CHECKS

TABLE = Path(__file__).parent / "data" / "operators.txt"
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
}
_TYPE_BITS = {"float32": 1, "bfloat16": 2, "int64": 4, "bool": 8}

Presence = Literal["required", "nullable", "omittable", "repeated"]
Kind = Literal["tensor", "int", "ints", "flag", "number"]


class TensorLike(Protocol):
    """A tensor as far as the table looks at it."""

    @property
    def dtype(self) -> str:
        """`float32`, `bfloat16`, `int64` or `bool`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""


Given = TensorLike | bool | int | float | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Extent:
    """One size of a tensor: `rest` is the product of any number of them, `maybe` is 1 where it is left out."""

    kind: Literal["one", "maybe", "rest"]
    value: Expression | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One place of an operator's stack; `text` is what the table says of it, `group` what it is a part of."""

    name: str
    text: str
    kind: Kind
    output: bool = False
    presence: Presence = "required"
    dtypes: tuple[str, ...] = ()
    extents: tuple[Extent, ...] = ()
    symbols: tuple[str, ...] | None = None
    low: float = -math.inf
    high: float = math.inf
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """A row of the table."""

    name: str
    parameters: tuple[Parameter, ...]
    rules: tuple[str, ...]

    def violation(self, stack: Sequence[Given]) -> str | None:
        """What of the arguments, outputs included, does not keep to the row; None where all does."""
        places = self.places(len(stack))
        if places is None:
            return f"has {len(stack)} arguments and outputs, takes {len(self.parameters)}"
        operands = Operands()
        given = {p.name: [stack[i] for i in place] for p, place in zip(self.parameters, places, strict=True)}
        for matches in (_takes, _fits):
            for parameter in self.parameters:
                for value in given[parameter.name]:
                    if not matches(parameter, value, operands):
                        return f"{parameter.name} is {_shown(value)}, takes {parameter.text}"
        operands.arguments = {name: _described(values) for name, values in given.items()}
        for rule in self.rules:
            if not _holds(rule, operands, given):
                return f"does not keep to {rule}"
        return None

    def places(self, count: int) -> list[range] | None:
        """Where in a stack of `count` the arguments of each parameter stand; None for a count that is not taken."""
        places, at, parameters = [], 0, len(self.parameters)
        for parameter in self.parameters:
            size = 1
            if parameter.presence == "omittable" and count + 1 == parameters:
                size = 0
            elif parameter.presence == "repeated":
                size = max(0, count + 1 - parameters)
                if size == 0:
                    return None
            places.append(range(at, at + size))
            at += size
        return places if at == count else None


@dataclass(slots=True)
class Table:
    """All rows by their names, and the largest rank and number of elements of a tensor."""

    operators: dict[str, Operator] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)


@cache
def table() -> Table:
    """The table of this release."""
    return _read(TABLE.read_text(encoding="utf-8"))


def violation(name: str, stack: Sequence[Given]) -> str | None:
    """What an instruction does wrong, None where it keeps to the table."""
    operator = table().operators.get(name)
    if operator is None:
        return "there is no such operator"
    limits = table().limits
    for value in stack:
        shape = () if value is None or isinstance(value, bool | int | float | tuple) else value.shape
        if len(shape) > limits["rank"] or math.prod(shape) > limits["elements"] or min(shape, default=1) < 1:
            return f"{_shown(value)} is no tensor that an operator takes"
    return operator.violation(stack)


def _read(text: str) -> Table:
    found = Table()
    blocks: dict[str, list[str]] = {}
    title = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("limit "):
            _, name, number = line.split()
            found.limits[name] = int(number)
        elif not line.startswith(" "):
            title = line
            blocks[title] = []
        else:
            blocks[title].append(line.strip())
    for name in blocks:
        if not name.startswith("group "):
            parameters: list[Parameter] = []
            rules: list[str] = []
            _read_lines(blocks[name], blocks, None, parameters, rules)
            found.operators[name] = Operator(name, tuple(parameters), tuple(rules))
    return found


def _read_lines(
    lines: list[str], blocks: dict[str, list[str]], group: str | None, parameters: list[Parameter], rules: list[str]
) -> None:
    for line in lines:
        first = line.split()[0]
        if first == "use":
            used = line.split()[1]
            _read_lines(blocks[f"group {used}"], blocks, used, parameters, rules)
        elif first == "->":
            parameters.append(_parameter(line[2:].strip(), output=True, group=group))
        elif re.search(r"[=<>!]", line) or "(" in first:
            rules.append(line)
        else:
            parameters.append(_parameter(line, output=False, group=group))


def _parameter(line: str, *, output: bool, group: str | None) -> Parameter:
    name, text = line.split(maxsplit=1)
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    if kind in ("int", "ints", "flag", "number"):
        symbols: tuple[str, ...] | None = None
        if (listed := re.match(r"\[(.*?)\]|([A-Za-z]\w*)", rest)) is not None:
            symbols = tuple(part.strip() for part in (listed[1] or listed[2]).split(","))
            rest = rest[listed.end() :].strip()
        low, high = rest.split("..") if rest else ("-inf", "inf")
        return Parameter(
            name, text, cast(Kind, kind), output, symbols=symbols, low=float(low), high=float(high), group=group
        )
    presence: Presence = "required"
    for suffix, meaning in (("?", "nullable"), ("~", "omittable"), ("...", "repeated")):
        if kind.endswith(suffix):
            kind, presence = kind.removesuffix(suffix), cast(Presence, meaning)
    extents = tuple(_extent(part.strip()) for part in rest[1:-1].split(","))
    return Parameter(name, text, "tensor", output, presence, tuple(kind.split("|")), extents, group=group)


def _extent(text: str) -> Extent:
    if text.startswith("*"):
        return Extent("rest", parse(text[1:]) if text != "*" else None)
    if text.endswith("?"):
        return Extent("maybe", parse(text[:-1]))
    return Extent("one", parse(text))


def _takes(parameter: Parameter, value: Given, operands: Operands) -> bool:
    """Kind, type and range; gives symbols their values."""
    if value is None:
        return parameter.presence == "nullable"
    if parameter.kind == "flag":
        return isinstance(value, bool) and operands.bind_all(parameter.symbols, (int(value),))
    if isinstance(value, bool):
        return False
    if parameter.kind == "number":
        return isinstance(value, float) and (
            (parameter.low, parameter.high) == (-math.inf, math.inf) or parameter.low <= value <= parameter.high
        )
    if parameter.kind in ("int", "ints"):
        if not isinstance(value, int if parameter.kind == "int" else tuple):
            return False
        numbers = (value,) if isinstance(value, int) else value
        inside = all(parameter.low <= number <= parameter.high for number in numbers)
        return inside and operands.bind_all(parameter.symbols, numbers)
    if isinstance(value, int | float | tuple) or value.dtype not in parameter.dtypes:
        return False
    return _match(parameter, value, operands, binding=True)


def _fits(parameter: Parameter, value: Given, operands: Operands) -> bool:
    if value is None or isinstance(value, bool | int | float | tuple):
        return True
    return _match(parameter, value, operands, binding=False)


def _match(parameter: Parameter, value: TensorLike, operands: Operands, *, binding: bool) -> bool:
    """Hold the sizes against the extents; `binding` only gives symbols that stand alone their values."""
    kinds = [extent.kind for extent in parameter.extents]
    rank, fixed, maybe = len(value.shape), kinds.count("one"), kinds.count("maybe")
    if rank < fixed or ("rest" not in kinds and rank > fixed + maybe):
        return False
    at = 0
    for extent in parameter.extents:
        taken = rank - fixed if extent.kind == "rest" else int(extent.kind == "one" or rank == fixed + maybe)
        size = math.prod(value.shape[at : at + taken])
        at += taken
        if extent.value is None:
            continue
        if binding:
            if (symbol := extent.value.symbol) is not None and not operands.bind(symbol, size):
                return False
        elif operands.evaluate(extent.value) != size:
            return False
    return True


def _described(values: list[Given]) -> dict[str, int]:
    """What the functions of expressions say of an argument."""
    value = values[0] if values else None
    if value is None:
        return dict.fromkeys(FUNCTIONS, 0)
    if isinstance(value, bool | int | float):
        return {**dict.fromkeys(FUNCTIONS, 0), "present": 1}
    if isinstance(value, tuple):
        return {**dict.fromkeys(FUNCTIONS, 0), "present": 1, "count": len(value), "rank": len(value)}
    rank = len(value.shape)
    return {
        "present": 1,
        "type": _TYPE_BITS[value.dtype],
        "elements": math.prod(value.shape),
        "rank": rank,
        "count": rank,
    }


def _holds(rule: str, operands: Operands, given: dict[str, list[Given]]) -> bool:
    for comparison, compare in _COMPARISONS.items():
        if comparison in rule:
            left, right = (operands.evaluate(parse(side)) for side in rule.split(comparison))
            return left is not None and right is not None and compare(left, right)
    name, _, listed = rule.partition("(")
    return CHECKS[name](*(given[argument.strip()] for argument in listed.rstrip(")").split(",")))


def _shown(value: Given) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value.dtype} {list(value.shape)}"
