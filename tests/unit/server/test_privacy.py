"""Means with noise: what is cut down, how large the noise is, and what the accountant says of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_profiles.errors import UsageError
from device_profiles.update import UpdateMetadata
from server.averaging.aggregation import ReceivedUpdate
from server.averaging.means import mean_of
from server.averaging.private import NoisyMean, PrivacyBudget, epsilon_of
from server.fleet.fleet import TrainingSettings
from server.fleet.privacy import PrivacySettings
from server.fleet.reading import fleet_of
from server.rounds.checks import check_settings

BASE = {"w": np.ones((40, 50), np.float32), "b.running_var": np.full(10, 0.5, np.float32)}
SETTINGS = PrivacySettings(clip_norm=2.0, noise_multiplier=0.5)


def _update(
    client: str, move: float, names: tuple[str, ...] = ("w", "b.running_var"), examples: int = 1
) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1, program="grow-block1", examples=examples, steps=1, base_version="", loss_first=0.0, loss_last=0.0
    )
    return ReceivedUpdate(
        client=client, metadata=metadata, tensors={name: BASE[name] + np.float32(move) for name in names}
    )


class _Silent(np.random.Generator):
    """No noise."""

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return np.zeros(size)


def _silent(settings: PrivacySettings = SETTINGS) -> NoisyMean:
    return NoisyMean(settings, _Silent(np.random.PCG64(0)))


def test_a_whole_move_is_cut_down_and_examples_do_not_count() -> None:
    size = math.sqrt(2010)
    found = _silent()([_update("a", 100.0, examples=1000), _update("b", 0.001)], BASE)
    moved = (2.0 / size + 0.001) / 2
    np.testing.assert_allclose(found["w"], 1 + moved, rtol=1e-5)
    np.testing.assert_allclose(found["b.running_var"], 0.5 + moved, rtol=1e-5)


def test_a_tensor_is_averaged_over_those_who_trained_it_or_held_it_frozen() -> None:
    updates = [_update("a", 0.01, ("w",)), _update("b", 0.01)]
    alone, counted = _silent()(updates, BASE), _silent()(updates, BASE, counts_frozen=True)
    np.testing.assert_allclose(alone["b.running_var"], 0.51, rtol=1e-5)
    np.testing.assert_allclose(counted["b.running_var"], 0.505, rtol=1e-5)


def test_the_noise_is_that_of_the_settings_on_the_sum_and_no_seed_repeats_it() -> None:
    updates = [_update(name, 0.0) for name in "abcd"]
    first, second = NoisyMean(SETTINGS)(updates, BASE), NoisyMean(SETTINGS)(updates, BASE)
    assert np.std(first["w"]) == pytest.approx(0.5 * 2.0 / 4, rel=0.1)
    assert np.mean(first["w"]) == pytest.approx(1.0, abs=0.05)
    assert not np.array_equal(first["w"], second["w"])
    loud = NoisyMean(PrivacySettings(clip_norm=100.0, noise_multiplier=9.0))(updates, BASE)
    assert loud["b.running_var"].min() >= 0.0


def test_the_fleet_file_asks_for_it() -> None:
    assert isinstance(mean_of(TrainingSettings(), SETTINGS), NoisyMean)


def test_epsilon_is_that_of_the_gaussian_mechanism_and_grows_with_rounds() -> None:
    pytest.importorskip("dp_accounting", reason="epsilon comes from dp-accounting")
    settings = PrivacySettings(clip_norm=1.0, noise_multiplier=4.0)
    # Renyi divergence of k Gaussian mechanisms of order a is k a / (2 z^2); this turns it into epsilon as Mironov does,
    # which the accountant's conversion improves on.
    orders = np.arange(1.01, 200, 0.01)
    for rounds in (1, 10, 100):
        plain = float(np.min(rounds * orders / 32 + math.log(1 / settings.delta) / (orders - 1)))
        assert 0.7 * plain < epsilon_of(settings, rounds) < plain
    assert epsilon_of(settings, 0) == 0.0


def test_the_device_that_took_part_most_often_counts() -> None:
    pytest.importorskip("dp_accounting", reason="epsilon comes from dp-accounting")
    budget = PrivacyBudget(SETTINGS)
    budget.took_part(["a", "b"])
    assert budget.took_part(["b", "c"]) == epsilon_of(SETTINGS, 2)
    assert PrivacyBudget(None).took_part(["a"]) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, 'training.aggregation robust: .privacy. holds for a mean .*; write aggregation = "mean"'),
        (
            {"training": {"aggregation": "mean"}, "method": {"name": "heterofl"}},
            "method.name heterofl: .privacy. goes with profl, elastic, planned",
        ),
    ],
)
def test_what_the_guarantee_does_not_hold_for_is_refused(changed: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "model": {"name": "cnn"},
        "data": {"sources": ["digits"]},
        "population": {"count": 2},
        "privacy": msgspec.to_builtins(SETTINGS),
    }
    with pytest.raises(UsageError, match=message):
        check_settings(fleet_of(values | changed, Path("fleet.toml")), "simulation")
