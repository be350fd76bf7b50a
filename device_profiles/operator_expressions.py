"""Integer expressions of the table of operators: `(OH - 1) * SH + present(mask)`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

FUNCTIONS = ("present", "type", "elements", "rank", "count")
"""Of one argument, which is named."""


@dataclass(frozen=True, slots=True)
class Expression:
    """`what` is a number, a symbol, a function of the argument `name`, `min`, or a sign between two parts."""

    what: str
    number: int = 0
    name: str = ""
    parts: tuple[Expression, ...] = ()

    @property
    def symbol(self) -> str | None:
        """The symbol that this is and nothing else."""
        return self.name if self.what == "symbol" else None


@dataclass(slots=True)
class Operands:
    """Values of the symbols, and what the functions say of the arguments by their names."""

    symbols: dict[str, int] = field(default_factory=dict)
    arguments: dict[str, dict[str, int]] = field(default_factory=dict)

    def bind(self, symbol: str, value: int) -> bool:
        """Give a symbol its value; False where it has another."""
        return self.symbols.setdefault(symbol, value) == value

    def bind_all(self, symbols: tuple[str, ...] | None, values: tuple[int, ...]) -> bool:
        """The same for as many; anything goes where none are listed."""
        if symbols is None:
            return True
        return len(symbols) == len(values) and all(map(self.bind, symbols, values))

    def evaluate(self, expression: Expression) -> int | None:
        """None for a symbol without a value and a division by zero: what asks for it does not hold then."""
        if expression.what == "number":
            return expression.number
        if expression.what == "symbol":
            return self.symbols.get(expression.name)
        if expression.what in FUNCTIONS:
            return self.arguments[expression.name][expression.what]
        left, right = (self.evaluate(part) for part in expression.parts)
        if left is None or right is None or (expression.what in "/%" and right <= 0):
            return None
        return {
            "+": lambda: left + right,
            "-": lambda: left - right,
            "*": lambda: left * right,
            "/": lambda: left // right,
            "%": lambda: left % right,
            "min": lambda: min(left, right),
        }[expression.what]()


@cache
def parse(text: str) -> Expression:
    """Read an expression; raises ValueError for anything else."""
    reader = _Reader(re.findall(r"\w+|\S", text))
    expression = reader.sum()
    if reader.words:
        raise ValueError(f"'{text}' is no expression")
    return expression


class _Reader:
    def __init__(self, words: list[str]) -> None:
        self.words = words

    def sum(self) -> Expression:
        left = self._product()
        while self.words and self.words[0] in "+-":
            left = Expression(self.words.pop(0), parts=(left, self._product()))
        return left

    def _product(self) -> Expression:
        left = self._factor()
        while self.words and self.words[0] in "*/%":
            left = Expression(self.words.pop(0), parts=(left, self._factor()))
        return left

    def _factor(self) -> Expression:
        word = self._take()
        if word == "(":
            inner = self.sum()
            self._take(")")
            return inner
        if word.isdigit():
            return Expression("number", number=int(word))
        if not self.words or self.words[0] != "(":
            return Expression("symbol", name=word)
        self._take("(")
        if word == "min":
            left = self.sum()
            self._take(",")
            inner = Expression("min", parts=(left, self.sum()))
        else:
            inner = Expression(word, name=self._take())
        self._take(")")
        return inner

    def _take(self, expected: str | None = None) -> str:
        word = self.words.pop(0) if self.words else ""
        if not word or (expected is not None and word != expected):
            raise ValueError(f"'{word}' stands where {expected or 'an expression'} should")
        return word
