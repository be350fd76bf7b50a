"""Seconds of a step: the speed that programs were made with is found again, and nothing is below zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest

from device_profiles.loads import Family, Load, Loads
from device_profiles.seconds import WEIGHTS, Speed, fit_speed

_PROGRAMS: list[Loads] = [
    {
        "convolution": Load(9, 1, 1, 10**7 * (1 + place % 3)),
        "winograd": Load(20 + place, 1, 1, 10**7 * (4 + place * place % 7)),
        "elements": Load(50, 0, 1, 10**6 * (1 + place)),
    }
    for place in range(9)
]


def _speed(factor: float, **families: float) -> Speed:
    return Speed(factors=dict.fromkeys((*get_args(Family), WEIGHTS), factor) | families)


def _seconds(speed: Speed, loads: Mapping[Family, Load]) -> float:
    seconds = speed.seconds(loads)
    assert seconds is not None
    return seconds


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_a_device_that_is_only_quicker_or_slower_is_met_from_one_program(factor: float) -> None:
    true = _speed(factor)
    found = fit_speed([(_PROGRAMS[0], _seconds(true, _PROGRAMS[0]))])
    assert found is not None
    unseen: Loads = {"attention": Load(3, 10**9, 10**6, 12345678)}
    for loads in [*_PROGRAMS, unseen]:
        assert found.seconds(loads) == pytest.approx(true.seconds(loads), rel=1e-6)


def test_families_that_differ_from_the_reference_are_found_from_several() -> None:
    true = _speed(1.0, winograd=1.5, elements=0.5)
    found = fit_speed([(loads, _seconds(true, loads)) for loads in _PROGRAMS[:6]])
    alone = fit_speed([(_PROGRAMS[0], _seconds(true, _PROGRAMS[0]))])
    assert found is not None and alone is not None
    errors = [abs(_seconds(found, loads) / _seconds(true, loads) - 1) for loads in _PROGRAMS[6:]]
    worst = max(abs(_seconds(alone, loads) / _seconds(true, loads) - 1) for loads in _PROGRAMS[6:])
    assert max(errors) < 0.75 * worst


def test_what_goes_over_weights_has_a_factor_of_its_own_in_all_families() -> None:
    programs: list[Loads] = [
        {
            "winograd": Load(20, 1, 1, 10**7 * (4 + place), 10**7 * (1 + place % 3)),
            "linear": Load(2, 1, 1, 10**7, 10**6 * (1 + place % 4)),
        }
        for place in range(9)
    ]
    true = _speed(1.0, weights=3.0)
    found = fit_speed([(loads, _seconds(true, loads)) for loads in programs[:6]])
    assert found is not None
    assert found.factors["weights"] > 2 * found.factors["winograd"]
    for loads in programs[6:]:
        assert _seconds(found, loads) == pytest.approx(_seconds(true, loads), rel=0.1)
    light: Loads = {"winograd": Load(20, 1, 1, 10**8)}
    heavy: Loads = {"winograd": Load(20, 1, 1, 10**8, 10**8)}
    assert _seconds(true, heavy) == pytest.approx(3 * _seconds(true, light))


def test_no_factor_is_below_zero_whatever_was_measured() -> None:
    measured = [(loads, 0.01 if place % 2 else 5.0) for place, loads in enumerate(_PROGRAMS)]
    found = fit_speed(measured)
    assert found is not None and all(factor >= 0 for factor in found.factors.values())


def test_without_loads_or_with_those_of_an_earlier_release_nothing_is_said() -> None:
    earlier: Loads = {"convolution": Load(9, 10**9, 10**7)}
    assert fit_speed([({}, 1.0)]) is None
    assert fit_speed([(earlier, 1.0)]) is None
    assert fit_speed([]) is None
    assert _speed(1.0).seconds(earlier) is None
