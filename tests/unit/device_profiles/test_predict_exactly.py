"""The arithmetic of a prediction, number by number."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest, Program
from device_profiles.predict import calibrate, predict
from device_profiles.profile import Cost, DeviceProfile
from device_profiles.work import Distill, Eval, Grow, Joint

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
PROFILE = read_json(GOLDEN / "profile.json", DeviceProfile)
PROGRAM = read_json(GOLDEN / "manifest.json", Manifest).programs[0]
MB = 1 << 20


def _cost(name: str, plan: tuple[int, int, int, int], measured: int | None, **changes: object) -> Cost:
    """Measured at `measured`; `plan` is its arena, frozen weights, workspace and staging."""
    arena, frozen, workspace, staging = plan
    values = {"base_bytes": 30 * MB, "base_minimum_bytes": None, **changes}
    return msgspec.structs.replace(
        PROFILE.costs[0],
        program=name,
        arena_bytes=arena,
        frozen_bytes=frozen,
        workspace_bytes=workspace,
        staging_bytes=staging,
        measured_peak_bytes=measured,
        **values,
    )


def _profile(*costs: Cost, threads: int = 2) -> DeviceProfile:
    measurement = msgspec.structs.replace(PROFILE.measurement, threads=threads)
    return msgspec.structs.replace(PROFILE, costs=costs, measurement=measurement)


def _program(arena: int, *, workspace: int = 0) -> Program:
    memory = msgspec.structs.replace(
        PROGRAM.memory, arena_bytes=arena, frozen_bytes=0, staging_bytes=0, workspace_bytes_per_thread=workspace
    )
    return msgspec.structs.replace(PROGRAM, memory=memory)


def test_a_correction_is_what_was_measured_less_base_and_the_whole_plan() -> None:
    known = calibrate([_cost("a", (1000, 200, 30, 4), 30 * MB + 1234 + 7)])
    assert known.plan_bytes == (1234,) and known.correction_bytes == (7,)
    assert (known.base_bytes, known.base_spread_bytes) == (30 * MB, 0)


def test_corrections_are_interpolated_between_their_neighbours_and_kept_beyond_the_ends() -> None:
    costs = [
        _cost(str(plan), (plan, 0, 0, 0), 30 * MB + plan + more) for plan, more in ((200, 40), (100, 0), (600, 80))
    ]
    known = calibrate(costs)
    assert known.programs == ("100", "200", "600")
    wanted = {0: 0, 99: 0, 100: 0, 101: 0, 125: 10, 150: 20, 199: 40, 200: 40, 300: 50, 599: 80, 600: 80, 601: 80}
    assert {plan: known.correction(plan) for plan in wanted} == wanted


def test_plans_that_differ_by_one_byte_keep_their_own_corrections() -> None:
    known = calibrate([_cost(str(plan), (plan, 0, 0, 0), 30 * MB + 2 * plan) for plan in (100, 101)])
    assert [known.correction(plan) for plan in (100, 101)] == [100, 101]


def test_the_base_is_the_median_and_its_spread_goes_down_to_the_lowest_that_was_seen() -> None:
    costs = [
        _cost("a", (100, 0, 0, 0), 50 * MB, base_bytes=30 * MB, base_minimum_bytes=29 * MB),
        _cost("b", (200, 0, 0, 0), 50 * MB, base_bytes=31 * MB),
        _cost("c", (300, 0, 0, 0), 50 * MB, base_bytes=35 * MB),
    ]
    known = calibrate(costs)
    assert known.base_bytes == 31 * MB and known.base_spread_bytes == 6 * MB
    assert calibrate(costs[1:]).base_spread_bytes == 4 * MB


def test_a_promise_is_the_prediction_the_spread_of_the_base_and_four_megabytes() -> None:
    costs = [
        _cost("a", (10 * MB, 0, 0, 0), 41 * MB, base_bytes=30 * MB),
        _cost("b", (20 * MB, 0, 0, 0), 53 * MB, base_bytes=32 * MB),
    ]
    found = predict(_program(14 * MB, workspace=MB // 4), _profile(*costs), examples=1000)
    assert found.plan_bytes == 14 * MB + MB // 2 and found.base_bytes == 31 * MB
    assert found.correction_bytes == MB
    assert found.peak_bytes == 31 * MB + 14 * MB + MB // 2 + MB + 48_000
    assert found.high_bytes == found.peak_bytes + 2 * MB + 4 * MB
    assert found.low_bytes == found.peak_bytes - 2 * MB - 4 * MB - MB // 2 - 48_000
    assert found.program == PROGRAM.name and found.calibrated_by == ("a", "b")


def test_other_threads_change_the_plan_and_not_what_a_process_may_leave_untouched() -> None:
    profile = _profile(_cost("a", (10 * MB, 0, 0, 0), 41 * MB), threads=2)
    program = _program(14 * MB, workspace=MB)
    two, three = predict(program, profile), predict(program, profile, threads=3)
    assert three.plan_bytes - two.plan_bytes == three.peak_bytes - two.peak_bytes == MB
    assert three.low_bytes - two.low_bytes == MB
    assert predict(program, profile, threads=2) == two


def test_nothing_is_predicted_below_zero() -> None:
    small = _profile(_cost("a", (1, 0, 0, 0), 100, base_bytes=99))
    assert predict(_program(1), small).low_bytes == 0


@pytest.mark.parametrize("kind", [Grow, Joint, Distill])
def test_every_training_calibrates(kind: type[Grow | Joint | Distill]) -> None:
    assert calibrate([_cost("a", (1, 0, 0, 0), 50 * MB, work=kind(first_unit=0, last_unit=1))]).programs == ("a",)


def test_without_a_training_that_fitted_the_profile_and_the_remedy_are_named() -> None:
    nothing = "no training program was measured; run profl-profile on the device"
    with pytest.raises(FormatError, match=f"^mine: costs: {nothing}$"):
        calibrate([_cost("a", (1, 0, 0, 0), None)], "mine")
    with pytest.raises(FormatError, match=f"^profile: costs: {nothing}$"):
        predict(PROGRAM, _profile(_cost("a", (1, 0, 0, 0), 50 * MB, work=Eval(last_unit=0))))
