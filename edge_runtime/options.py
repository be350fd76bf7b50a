"""Types of options that the commands of every package share; host and device know nothing of each other here."""

from __future__ import annotations

from typing import Any

import click

_LARGEST = 3.4e38
"""Of float32, which is what programs compute in."""


class Finite(click.FloatRange):
    """A number within a range, which neither `nan` nor `inf` is: both pass click's own comparisons."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; fails naming the option for what is none, or is out of range."""
        number = float(super().convert(value, param, ctx))
        if not abs(number) <= _LARGEST:
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
