"""Averaging and what is kept out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_profiles.bundle import Manifest, Program
from device_profiles.files import read_json
from device_profiles.update import UpdateMetadata
from server.aggregation import ReceivedUpdate, average, reason_to_reject

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "manifest.json"


def _update(client: str, examples: int, **tensors: np.ndarray) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1, program="grow-block1", examples=examples, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


def test_the_mean_is_weighted_by_examples() -> None:
    merged = average([_update("a", 1, w=np.float32([0, 4])), _update("b", 3, w=np.float32([8, 0]))])
    np.testing.assert_array_equal(merged["w"], np.float32([6, 1]))


def test_every_tensor_is_averaged_over_the_clients_that_trained_it() -> None:
    merged = average([_update("a", 1, w=np.float32([2]), v=np.float32([7])), _update("b", 1, w=np.float32([4]))])
    assert merged["w"] == 3 and merged["v"] == 7


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    generator = np.random.default_rng(0)
    updates = [_update(str(i), i + 1, w=generator.standard_normal(100).astype(np.float32)) for i in range(5)]
    np.testing.assert_array_equal(average(updates)["w"], average(updates[::-1])["w"])


@pytest.fixture
def program() -> Program:
    return read_json(GOLDEN, Manifest).program("grow-block1")


def _complete(program: Program) -> dict[str, np.ndarray]:
    return {t.name: np.zeros(t.shape, np.float32) for t in program.tensors if t.role != "optimizer_state"}


def test_a_sound_update_is_taken(program: Program) -> None:
    assert reason_to_reject(_update("a", 5, **_complete(program)), program, "v") is None


def test_what_must_not_enter_the_average_is_rejected_with_its_reason(program: Program) -> None:
    good = _complete(program)
    name = next(iter(good))
    missing = {key: value for key, value in good.items() if key != name}
    assert name in str(reason_to_reject(_update("a", 5, **missing), program, "v"))
    assert "shape" in str(reason_to_reject(_update("a", 5, **{**good, name: np.zeros(3, np.float32)}), program, "v"))
    poisoned = {**good, name: np.full_like(good[name], np.nan)}
    assert "not finite" in str(reason_to_reject(_update("a", 5, **poisoned), program, "v"))
    assert "started from weights v" in str(reason_to_reject(_update("a", 5, **good), program, "other"))
    assert "no examples" in str(reason_to_reject(_update("a", 0, **good), program, "v"))


def test_an_update_of_another_block_is_rejected(program: Program) -> None:
    other = read_json(GOLDEN, Manifest).program("grow-block2")
    assert "trained grow-block1" in str(reason_to_reject(_update("a", 5, **_complete(program)), other, "v"))
