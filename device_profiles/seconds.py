"""Predict the seconds of a step: from its loads, and from the programs that a device's profile has measured.

A step takes the sum over its kernels of arithmetic by rate, bytes by bandwidth and a price for every call. How the
families of kernels compare with each other is known from a reference machine (`REFERENCE`); the measured programs say
how quick the device is, and by how much its families differ from that. Where they say nothing about a family, the
reference and the device's general speed stand for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from device_profiles.loads import Family, Load

Prices = dict[str, float]

REFERENCE: Prices = {
    "convolution": 0.02,
    "winograd": 0.0085,
    "pointwise": 0.02,
    "depthwise": 0.1,
    "linear": 0.02,
    "attention": 0.03,
    "bytes": 0.06,
    "calls": 5.0e-6,
}
"""Seconds per billion operations of each family, per billion bytes moved, and per call of a kernel.

Rough values of one core with AVX-512; only their ratios matter, until enough programs were measured.
"""
_BILLION = 1e9
_TRUST = 0.005
"""How much a deviation of a price from the reference weighs against the same deviation of a measured program."""
_SWEEPS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What a device takes, by the entries of `REFERENCE`."""

    prices: Prices

    def seconds(self, loads: Mapping[Family, Load]) -> float:
        """Of one step."""
        return sum(self.prices[name] * amount for name, amount in _amounts(loads).items())


def fit_speed(measured: Sequence[tuple[Mapping[Family, Load], float]]) -> Speed | None:
    """The prices that explain (loads, seconds of a step) best, none below zero; None where nothing was measured.

    Least squares of relative errors. The reference, scaled to the device, holds what the programs leave open.
    """
    rows = [(_amounts(loads), seconds) for loads, seconds in measured if loads and seconds > 0]
    if not rows:
        return None
    scale = median(seconds / _at(REFERENCE, amounts) for amounts, seconds in rows)
    start = {name: price * scale for name, price in REFERENCE.items()}
    prices = dict(start)
    # Coordinate descent: the problem is convex, and every step is the exact minimum over one price.
    for _ in range(_SWEEPS):
        for name in prices:
            shares = [amounts.get(name, 0.0) / seconds for amounts, seconds in rows]
            missing = [1 - (_at(prices, amounts) / seconds) for amounts, seconds in rows]
            weight = _TRUST * len(rows) / start[name] ** 2
            up = sum(s * m for s, m in zip(shares, missing, strict=True)) + weight * (start[name] - prices[name])
            prices[name] = max(0.0, prices[name] + up / (sum(s * s for s in shares) + weight))
    return Speed(prices=prices)


def _at(prices: Prices, amounts: Mapping[str, float]) -> float:
    return sum(prices[name] * amount for name, amount in amounts.items())


def _amounts(loads: Mapping[Family, Load]) -> dict[str, float]:
    amounts = {str(name): load.flop / _BILLION for name, load in loads.items() if name in REFERENCE}
    amounts["bytes"] = sum(load.moved_bytes for load in loads.values()) / _BILLION
    amounts["calls"] = float(sum(load.calls for load in loads.values()))
    return amounts
