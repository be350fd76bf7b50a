"""Averaging and what is kept out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_profiles.bundle import Manifest
from device_profiles.files import read_json
from device_profiles.update import UpdateMetadata
from server.aggregation import ReceivedUpdate, average, outliers, reason_to_reject
from server.structure import Structure
from server.work import Work

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "manifest.json"


def _update(client: str, examples: int, **tensors: np.ndarray) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1, program="grow-block1", examples=examples, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


BASE = {"w": np.zeros(2, np.float32), "v": np.zeros(1, np.float32)}
BLOCK_1 = Work(purpose="grow", block=1)
STRUCTURE = Structure.of(read_json(GOLDEN, Manifest))


def test_the_mean_is_weighted_by_examples() -> None:
    merged = average([_update("a", 1, w=np.float32([0, 4])), _update("b", 3, w=np.float32([8, 0]))], BASE)
    np.testing.assert_array_equal(merged["w"], np.float32([6, 1]))


def test_every_tensor_is_averaged_over_the_clients_that_trained_it() -> None:
    base = {"w": np.zeros(1, np.float32), "v": np.zeros(1, np.float32)}
    merged = average([_update("a", 1, w=np.float32([2]), v=np.float32([7])), _update("b", 1, w=np.float32([4]))], base)
    assert merged["w"] == 3 and merged["v"] == 7


def test_slices_are_averaged_where_they_meet_and_the_rest_stays() -> None:
    base = {"w": np.full((3, 2), 9, np.float32)}
    wide, narrow = np.full((2, 2), 4, np.float32), np.full((1, 1), 1, np.float32)
    merged = average([_update("a", 1, w=wide), _update("b", 2, w=narrow)], base)
    np.testing.assert_array_equal(merged["w"], np.float32([[2, 4], [4, 4], [9, 9]]))


def test_rows_that_a_client_did_not_train_do_not_count() -> None:
    base = {"w": np.zeros((2, 1), np.float32)}
    first = ReceivedUpdate(
        client="a",
        metadata=_update("a", 1).metadata,
        tensors={"w": np.float32([[2], [100]])},
        rows={"w": np.array([True, False])},
    )
    merged = average([first, _update("b", 1, w=np.float32([[4], [6]]))], base)
    np.testing.assert_array_equal(merged["w"], np.float32([[3], [6]]))


def test_an_update_that_moved_absurdly_far_is_named() -> None:
    updates = [_update(name, 1, w=np.float32([1 + i, 1])) for i, name in enumerate("abcd")]
    assert outliers(updates, BASE) == {}
    huge = _update("e", 1, w=np.float32([1e6, 1]))
    assert list(outliers([*updates, huge], BASE)) == ["e"]
    assert outliers([updates[0], huge], BASE) == {}  # two say nothing about which one is odd


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    generator = np.random.default_rng(0)
    updates = [_update(str(i), i + 1, w=generator.standard_normal(100).astype(np.float32)) for i in range(5)]
    base = {"w": np.zeros(100, np.float32)}
    np.testing.assert_array_equal(average(updates, base)["w"], average(updates[::-1], base)["w"])


def _complete() -> dict[str, np.ndarray]:
    return {name: np.zeros(tensor.shape, np.float32) for name, tensor in STRUCTURE.tensors(BLOCK_1).items()}


def _reason(update: ReceivedUpdate, version: str = "v") -> str:
    return str(reason_to_reject(update, BLOCK_1, STRUCTURE, version))


def test_a_sound_update_is_taken() -> None:
    assert reason_to_reject(_update("a", 5, **_complete()), BLOCK_1, STRUCTURE, "v") is None


def test_what_must_not_enter_the_average_is_rejected_with_its_reason() -> None:
    good = _complete()
    name = next(iter(good))
    missing = {key: value for key, value in good.items() if key != name}
    assert name in _reason(_update("a", 5, **missing))
    assert "shape" in _reason(_update("a", 5, **{**good, name: np.zeros(3, np.float32)}))
    assert "type" in _reason(_update("a", 5, **{**good, name: good[name].astype(np.float64)}))
    assert "not finite" in _reason(_update("a", 5, **{**good, name: np.full_like(good[name], np.nan)}))
    assert "started from weights v" in _reason(_update("a", 5, **good), "other")
    assert "no examples" in _reason(_update("a", 0, **good))


def test_an_update_of_another_block_is_rejected() -> None:
    said = reason_to_reject(_update("a", 5, **_complete()), Work(purpose="grow", block=2), STRUCTURE, "v")
    assert "trained grow-block1, asked for grow-block2" in str(said)
