"""Predictions: exact for what was measured, between it for what lies between, refused where nothing is known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from device_profiles.loads import Load, Loads
from device_profiles.manifest import Manifest, Program
from device_profiles.predict import BYTES_PER_EXAMPLE, MARGIN_BYTES, calibrate, predict
from device_profiles.profile import Cost, DeviceProfile
from device_profiles.work import Eval

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
PROFILE = read_json(GOLDEN / "profile.json", DeviceProfile)
PROGRAM = read_json(GOLDEN / "manifest.json", Manifest).programs[0]


def _cost(name: str, arena: int, correction: int, *, base: int = 30 << 20) -> Cost:
    predicted = base + arena
    return msgspec.structs.replace(
        PROFILE.costs[0],
        program=name,
        base_bytes=base,
        arena_bytes=arena,
        frozen_bytes=0,
        workspace_bytes=0,
        staging_bytes=0,
        predicted_peak_bytes=predicted,
        measured_peak_bytes=predicted + correction,
        unexplained_bytes=correction,
    )


def _program(arena: int) -> Program:
    memory = msgspec.structs.replace(
        PROGRAM.memory, arena_bytes=arena, frozen_bytes=0, staging_bytes=0, workspace_bytes_per_thread=0
    )
    return msgspec.structs.replace(PROGRAM, memory=memory)


def _profile(*costs: Cost) -> DeviceProfile:
    return msgspec.structs.replace(PROFILE, costs=costs)


def test_a_program_that_was_measured_is_predicted_as_it_was_measured() -> None:
    profile = _profile(_cost("a", 8 << 20, -900_000), _cost("b", 64 << 20, 150_000))
    for cost in profile.costs:
        found = predict(_program(cost.arena_bytes), profile)
        assert found.peak_bytes == cost.measured_peak_bytes
    assert found.calibrated_by == ("a", "b")


@given(
    st.integers(1, 1 << 32), st.lists(st.tuples(st.integers(1, 1 << 32), st.integers(-(1 << 21), 1 << 20)), min_size=1)
)
def test_corrections_stay_between_those_that_were_measured(arena: int, known: list[tuple[int, int]]) -> None:
    profile = _profile(*(_cost(f"p{i}", *pair) for i, pair in enumerate(known)))
    found = predict(_program(arena), profile)
    corrections = [correction for _, correction in known]
    assert min(corrections) <= found.correction_bytes <= max(corrections)
    assert found.peak_bytes == found.base_bytes + found.plan_bytes + found.correction_bytes
    assert 0 <= found.low_bytes <= found.peak_bytes <= found.high_bytes - MARGIN_BYTES


def test_a_base_that_varies_widens_the_interval() -> None:
    steady = predict(PROGRAM, _profile(_cost("a", 8 << 20, 0), _cost("b", 9 << 20, 0)))
    varied = predict(PROGRAM, _profile(_cost("a", 8 << 20, 0), _cost("b", 9 << 20, 0, base=32 << 20)))
    assert varied.high_bytes - varied.peak_bytes == steady.high_bytes - steady.peak_bytes + (2 << 20)


def test_a_large_data_set_is_part_of_the_promise() -> None:
    profile = _profile(_cost("a", 8 << 20, 0))
    assert predict(PROGRAM, profile, examples=60_000).peak_bytes == (
        predict(PROGRAM, profile).peak_bytes + 60_000 * BYTES_PER_EXAMPLE
    )


def test_evaluations_cached_prefixes_and_what_did_not_fit_do_not_calibrate() -> None:
    used = _cost("a", 8 << 20, 0)
    others = [
        msgspec.structs.replace(_cost("e", 9 << 20, 5), work=Eval(last_unit=0)),
        msgspec.structs.replace(_cost("c", 9 << 20, 5), variant="cached-prefix"),
        msgspec.structs.replace(_cost("k", 9 << 20, 5), fits=False, measured_peak_bytes=None, reason="killed"),
    ]
    assert calibrate([used, *others]).programs == ("a",)
    with pytest.raises(FormatError, match="no training program was measured"):
        predict(PROGRAM, _profile(*others))


def test_a_profile_of_pytorch_predicts_nothing_of_this_runtime() -> None:
    with pytest.raises(FormatError, match="runtime is torch"):
        predict(PROGRAM, msgspec.structs.replace(PROFILE, runtime="torch"))


def test_seconds_that_were_measured_win_and_others_follow_from_loads() -> None:
    loads: Loads = {"convolution": Load(10, 10**9, 10**8, 10**8)}
    double: Loads = {"convolution": Load(20, 2 * 10**9, 2 * 10**8, 2 * 10**8)}
    cost = msgspec.structs.replace(_cost("a", 8 << 20, 0), loads=loads, step_seconds_median=0.25)
    profile = _profile(cost)
    known = msgspec.structs.replace(PROGRAM, name="a", loads=loads)
    other = msgspec.structs.replace(PROGRAM, name="b", loads=double)
    earlier = msgspec.structs.replace(PROGRAM, name="a", loads={"convolution": Load(10, 10**9, 10**8)})
    assert predict(known, profile).seconds_per_step == predict(earlier, profile).seconds_per_step == 0.25
    assert predict(other, profile).seconds_per_step == pytest.approx(0.5, rel=1e-6)
    assert predict(other, profile, threads=profile.measurement.threads + 1).seconds_per_step is None
    assert predict(PROGRAM, profile).seconds_per_step is None
    assert predict(other, _profile(_cost("a", 8 << 20, 0))).seconds_per_step is None
