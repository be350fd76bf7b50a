"""Trades: variants of a training step that take less memory, and what they are called in names of programs.

Recomputation costs seconds and keeps the result. Momentum in bfloat16 and micro-batches change it a little: the
momentum is rounded, and the statistics of a BatchNorm are those of each micro-batch.
"""

from __future__ import annotations

from typing import Literal, get_args

Trade = Literal["default", "recompute", "bfloat16", "micro2", "micro4"]
"""`micro4`: four executions a step."""
TRADES: tuple[Trade, ...] = get_args(Trade)
"""In the order in which a plan takes them."""
EXACT: tuple[Trade, ...] = ("default", "recompute")
"""Those that keep the result."""


Variants = Literal["exact", "any"]


def trades_of(variants: Variants) -> tuple[Trade, ...]:
    """What a plan may take of a fleet whose `method.variants` are these."""
    return TRADES if variants == "any" else EXACT


def with_trade(name: str, trade: Trade) -> str:
    """The name of a program: `joint-units3-8-recompute`."""
    return name if trade == "default" else f"{name}-{trade}"


def executions_of(trade: Trade) -> int:
    """Micro-batches that a step is divided into."""
    return int(trade.removeprefix("micro")) if trade.startswith("micro") else 1


def trade_named(name: str, label: str) -> Trade | None:
    """The trade that a program's name says behind its `label`; None where the name is another one."""
    return next((trade for trade in TRADES if name == with_trade(label, trade)), None)
