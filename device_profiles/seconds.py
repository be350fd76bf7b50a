"""Predict the seconds of a step: from its loads, and from the programs that a device's profile has measured.

The exporter states how long each family of kernels takes on a reference core (`Load.reference_ns`), which depends on
every kernel's shapes. The measured programs say how much slower or quicker the device is, by families; what goes over
weights, in kernels of all families, counts as one more, since it waits for memory and gains least from more threads.
Where they say little about a family, the device's general speed stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import get_args

from device_profiles.loads import Family, Load

_NANOSECOND = 1e-9
_TRUST = 0.01
"""How much a family's deviation from the general speed weighs against the same deviation of a measured program."""
_SWEEPS = 200
WEIGHTS = "weights"

Factors = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How many times as long as the reference core a device takes, by families of kernels."""

    factors: Factors

    def seconds(self, loads: Mapping[Family, Load]) -> float | None:
        """Of one step; None for loads of an earlier release, which do not say what the reference core takes."""
        return _at(self.factors, _reference(loads)) or None


def fit_speed(measured: Sequence[tuple[Mapping[Family, Load], float]]) -> Speed | None:
    """The factors that explain (loads, seconds of a step) best, none below zero; None where nothing was measured.

    Least squares of relative errors, held to the general speed where the programs leave something open.
    """
    rows = [(_reference(loads), seconds) for loads, seconds in measured if seconds > 0]
    rows = [(reference, seconds) for reference, seconds in rows if sum(reference.values()) > 0]
    if not rows:
        return None
    general = median(seconds / sum(reference.values()) for reference, seconds in rows)
    factors = dict.fromkeys((*get_args(Family), WEIGHTS), general)
    weight = _TRUST * len(rows) / general**2
    # Coordinate descent: the problem is convex, and every step is the exact minimum over one factor.
    for _ in range(_SWEEPS):
        for name in factors:
            shares = [reference.get(name, 0.0) / seconds for reference, seconds in rows]
            missing = [1 - _at(factors, reference) / seconds for reference, seconds in rows]
            up = sum(s * m for s, m in zip(shares, missing, strict=True)) + weight * (general - factors[name])
            factors[name] = max(0.0, factors[name] + up / (sum(s * s for s in shares) + weight))
    return Speed(factors=factors)


def _at(factors: Factors, reference: Mapping[str, float]) -> float:
    return sum(factors[name] * seconds for name, seconds in reference.items())


def _reference(loads: Mapping[Family, Load]) -> dict[str, float]:
    """Seconds of the reference core."""
    own = {str(name): (load.reference_ns - load.weights_ns) * _NANOSECOND for name, load in loads.items()}
    return own | {WEIGHTS: sum(load.weights_ns for load in loads.values()) * _NANOSECOND}
