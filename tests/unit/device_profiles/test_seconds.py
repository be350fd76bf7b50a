"""Seconds of a step: the prices that programs were made with are found again, and nothing is below zero."""

from __future__ import annotations

import pytest

from device_profiles.loads import Load, Loads
from device_profiles.seconds import REFERENCE, Speed, fit_speed

_PROGRAMS: list[Loads] = [
    {
        "convolution": Load(9, 10**9 * (1 + place % 3), 10**7 * (5 + 7 * (place % 4))),
        "winograd": Load(20 + place, 10**9 * (4 + place * place % 7), 10**8),
        "elements": Load(50 * (1 + place % 2), 0, 10**8 * (1 + place)),
    }
    for place in range(9)
]


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_a_device_that_is_only_quicker_or_slower_is_met_from_one_program(factor: float) -> None:
    true = Speed(prices={name: price * factor for name, price in REFERENCE.items()})
    found = fit_speed([(_PROGRAMS[0], true.seconds(_PROGRAMS[0]))])
    assert found is not None
    for loads in [*_PROGRAMS, {"attention": Load(3, 10**9, 10**6)}]:
        assert found.seconds(loads) == pytest.approx(true.seconds(loads), rel=1e-6)  # type: ignore[arg-type]


def test_families_that_differ_from_the_reference_are_found_from_several() -> None:
    true = Speed(prices=REFERENCE | {"winograd": REFERENCE["winograd"] * 1.5, "bytes": REFERENCE["bytes"] / 1.5})
    found = fit_speed([(loads, true.seconds(loads)) for loads in _PROGRAMS[:6]])
    alone = fit_speed([(_PROGRAMS[0], true.seconds(_PROGRAMS[0]))])
    assert found is not None and alone is not None
    errors = [abs(found.seconds(loads) / true.seconds(loads) - 1) for loads in _PROGRAMS[6:]]
    assert max(errors) < 0.6 * max(abs(alone.seconds(loads) / true.seconds(loads) - 1) for loads in _PROGRAMS[6:])


def test_no_price_is_below_zero_whatever_was_measured() -> None:
    measured = [(loads, 0.01 if place % 2 else 5.0) for place, loads in enumerate(_PROGRAMS)]
    found = fit_speed(measured)
    assert found is not None and all(price >= 0 for price in found.prices.values())


def test_without_loads_nothing_is_said() -> None:
    assert fit_speed([({}, 1.0)]) is None
    assert fit_speed([]) is None
