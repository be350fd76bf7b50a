"""Which seconds a prediction has: those that were measured of the same work, else those that its loads say."""

from __future__ import annotations

import msgspec
import pytest

from device_profiles.loads import Load, Loads
from device_profiles.manifest import Program
from device_profiles.predict import calibrate, predict
from tests.unit.device_profiles.test_predict_exactly import _cost, _profile, _program

ONE: Loads = {"convolution": Load(9, 1, 1, 10**7)}
TWICE: Loads = {"convolution": Load(18, 1, 1, 2 * 10**7)}
PLAN = (100, 0, 0, 0)


def _program_of(loads: Loads, name: str = "other") -> Program:
    return msgspec.structs.replace(_program(100), name=name, loads=loads)


def test_what_was_not_measured_takes_what_its_loads_say() -> None:
    profile = _profile(_cost("a", PLAN, 40 << 20, loads=ONE, step_seconds_median=0.5))
    assert predict(_program_of(TWICE), profile).seconds_per_step == pytest.approx(1.0)
    assert predict(_program_of({}), profile).seconds_per_step is None


def test_what_was_measured_of_the_same_work_wins() -> None:
    costs = [
        _cost("a", PLAN, 40 << 20, loads=ONE, step_seconds_median=0.5),
        _cost("b", PLAN, 40 << 20, loads=ONE, step_seconds_median=0.7),
        _cost("c", PLAN, 40 << 20, loads=ONE, step_seconds_median=None),
    ]
    profile = _profile(*costs)
    assert predict(_program_of(ONE, "b"), profile).seconds_per_step == 0.7
    assert predict(_program_of(TWICE, "b"), profile).seconds_per_step != 0.7  # of another bundle, under the same name
    assert predict(_program_of(ONE, "c"), profile).seconds_per_step == pytest.approx(0.6, rel=0.1)


def test_programs_that_say_nothing_of_their_loads_may_be_different_ones() -> None:
    known, silent = (
        _cost(name, PLAN, 40 << 20, loads=loads, step_seconds_median=0.5) for name, loads in (("a", ONE), ("b", {}))
    )
    assert predict(_program_of({}, "b"), _profile(known, silent)).seconds_per_step is None


def test_a_program_whose_seconds_nobody_measured_does_not_keep_others_from_being_known() -> None:
    without = _cost("b", PLAN, 40 << 20, loads=ONE, step_seconds_median=None)
    assert calibrate([without]).speed is None
    assert calibrate([without, _cost("a", PLAN, 40 << 20, loads=ONE, step_seconds_median=0.5)]).speed is not None
