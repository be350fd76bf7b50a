"""Effective movement: hand-computed series and a literal transcription of the formula."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from server.fleet.fleet import FreezingSettings
from server.rounds.freezing import EffectiveMovementFreezing, effective_movement, fitted_slope, sample_scalars


def _series(*values: float) -> list[np.ndarray]:
    return [np.array([value]) for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 1, 2, 3), 1.0),  # always the same way
        ((0, 1, 0, 1), 1 / 3),  # back and forth: ends 1 away after a path of 3
        ((0, 1, 0, 0), 0.0),  # back where it was
        ((5, 5, 5, 5), 0.0),  # nothing moved
        ((0, 2, 1, 4), 4 / 6),
    ],
)
def test_hand_computed_movement(values: tuple[float, ...], expected: float) -> None:
    assert effective_movement(_series(*values), 3) == pytest.approx(expected)


def test_nothing_is_said_before_the_window_is_full() -> None:
    assert effective_movement(_series(0, 1, 2), 3) is None


def test_it_equals_the_formula_written_out() -> None:
    generator = np.random.default_rng(1)
    a = [generator.standard_normal(50) for _ in range(9)]
    window, k = 6, 8
    numerator = np.abs(sum(a[k - h] - a[k - h - 1] for h in range(window))).sum()
    denominator = sum(np.abs(a[k - h] - a[k - h - 1]).sum() for h in range(window))
    assert effective_movement(a, window) == pytest.approx(numerator / denominator)


def test_the_fitted_slope_is_least_squares() -> None:
    values = [0.9, 0.7, 0.75, 0.4, 0.41]
    assert fitted_slope(values) == pytest.approx(np.polyfit(range(5), values, 1)[0])


SETTINGS = FreezingSettings(window=2, fit_length=2, threshold=0.1, patience=2, max_rounds=50)


def test_a_block_that_has_settled_freezes_after_its_patience() -> None:
    freezing = EffectiveMovementFreezing(SETTINGS)
    # Moving one way all the time: movement stays 1, its slope 0, from the third round with a value on.
    reasons = [freezing.observe(np.array([float(k)])) for k in range(5)]
    assert reasons[:4] == [None] * 4
    assert reasons[4] is not None and reasons[4].startswith("effective movement")


def test_a_changing_movement_is_not_frozen_before_the_cap() -> None:
    settings = FreezingSettings(window=1, fit_length=2, threshold=1e-9, patience=1, max_rounds=4)
    freezing = EffectiveMovementFreezing(settings)
    path = [0.0, 1.0, 1.0, 2.0, 2.0]  # movement 1, 0, 1, 0: its slope is never small
    reasons = [freezing.observe(np.array([value])) for value in path]
    assert reasons == [None, None, None, None, "round cap 4"]


def test_patience_starts_again_when_the_slope_rises_in_between() -> None:
    settings = FreezingSettings(window=1, fit_length=2, threshold=0.1, patience=2, max_rounds=50)
    freezing = EffectiveMovementFreezing(settings)
    # Movement 1, 1, 0, 0, 0: its slope is flat once, falls, and is flat twice.
    reasons = [freezing.observe(np.array([value])) for value in (0.0, 1.0, 2.0, 2.0, 2.0, 2.0)]
    assert reasons[:5] == [None] * 5
    assert reasons[5] is not None and reasons[5].startswith("effective movement")


def test_a_block_that_still_goes_one_way_is_not_frozen_where_a_fall_is_asked_for() -> None:
    freezing = EffectiveMovementFreezing(replace(SETTINGS, fall=0.5))
    # One way for eight rounds, movement 1; then to and fro, movement 0 from the tenth on, and its slope flat again.
    path = [*(float(k) for k in range(9)), 7.0, 8.0, 7.0, 8.0, 7.0]
    reasons = [freezing.observe(np.array([value])) for value in path]
    assert freezing.movements[:7] == [1.0] * 7 and freezing.movements[-4:] == [0.0] * 4
    assert reasons[:11] == [None] * 11
    assert reasons[12] is not None and reasons[12].startswith("effective movement")


def test_a_fall_is_measured_from_the_largest_movement_and_may_be_just_reached() -> None:
    settings = FreezingSettings(window=3, fit_length=2, threshold=9.0, patience=1, fall=1 / 3)
    freezing = EffectiveMovementFreezing(settings)
    # Movement 1, then 1/3 (two forward, one back, over a path of three).
    reasons = [freezing.observe(np.array([value])) for value in (0.0, 1.0, 2.0, 3.0, 4.0, 3.0)]
    assert freezing.movements == pytest.approx([1.0, 1.0, 1 / 3])
    assert reasons[:5] == [None] * 5 and reasons[5] is not None


def test_a_movement_above_the_level_is_not_calm_however_far_it_has_fallen() -> None:
    # Movement 1, then 1/3 (two forward, one back, over a path of three).
    path = [np.array([value]) for value in (0.0, 1.0, 2.0, 3.0, 4.0, 3.0)]
    for level, fall, frozen in ((0.34, None, True), (0.33, None, False), (0.33, 0.5, False), (0.5, 0.3, False)):
        settings = FreezingSettings(window=3, fit_length=2, threshold=9.0, patience=1, fall=fall, level=level)
        freezing = EffectiveMovementFreezing(settings)
        reasons = [freezing.observe(value) for value in path]
        assert reasons[:5] == [None] * 5 and (reasons[5] is not None) == frozen


def test_a_block_is_not_frozen_before_its_least_number_of_rounds() -> None:
    freezing = EffectiveMovementFreezing(replace(SETTINGS, min_rounds=7))
    reasons = [freezing.observe(np.array([float(k)])) for k in range(8)]
    assert reasons[:7] == [None] * 7
    assert reasons[7] is not None and reasons[7].startswith("effective movement")


def test_another_seed_samples_other_scalars() -> None:
    tensors = {"a": np.arange(1000, dtype=np.float32)}
    assert not np.array_equal(sample_scalars(tensors, 10, seed=1), sample_scalars(tensors, 10, seed=2))


def test_a_resumed_step_decides_as_an_undisturbed_one() -> None:
    generator = np.random.default_rng(3)
    history = [generator.standard_normal(20) for _ in range(6)]
    whole, first = EffectiveMovementFreezing(SETTINGS), EffectiveMovementFreezing(SETTINGS)
    for scalars in history:
        whole.observe(scalars)
    resumed = EffectiveMovementFreezing(SETTINGS, history[:4])
    for scalars in history[4:]:
        resumed.observe(scalars)
    assert resumed.slope == whole.slope
    assert first.slope is None


def test_sampling_takes_the_same_scalars_again() -> None:
    tensors = {"b": np.arange(100, dtype=np.float32), "a": -np.arange(50, dtype=np.float32)}
    once, again = sample_scalars(tensors, 10, seed=4), sample_scalars(dict(reversed(tensors.items())), 10, seed=4)
    np.testing.assert_array_equal(once, again)
    assert len(once) == 10
    assert len(sample_scalars(tensors, 1000, seed=4)) == 150
