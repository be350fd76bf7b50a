"""Averaging and what is kept out of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.task import has_diverged
from device_profiles.update import UpdateMetadata
from device_profiles.work import Width, distill, grow
from server.averaging.aggregation import ReceivedUpdate, average, reason_to_reject
from server.fleet.structure import Structure, TrainedTensor
from server.judging.outliers import outliers
from tests.support.partitions import blocks_of_one_unit

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "manifest.json"


def _update(client: str, examples: int, **tensors: np.ndarray) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1, program="grow-block1", examples=examples, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


BASE = {"w": np.zeros(2, np.float32), "v": np.zeros(1, np.float32)}
STRUCTURE = Structure.of(read_json(GOLDEN, Manifest))
BLOCK_1 = grow(STRUCTURE.partition, 1)


def test_the_mean_is_weighted_by_examples() -> None:
    merged = average([_update("a", 1, w=np.float32([0, 4])), _update("b", 3, w=np.float32([8, 0]))], BASE)
    np.testing.assert_array_equal(merged["w"], np.float32([6, 1]))


def test_half_of_its_work_is_half_of_its_weight_in_whole_tensors_and_in_slices() -> None:
    half = replace(_update("a", 2, w=np.float32([0, 4])), share=0.5)
    merged = average([half, _update("b", 3, w=np.float32([8, 0]))], BASE)
    np.testing.assert_array_equal(merged["w"], np.float32([6, 1]))
    half = replace(half, tensors={"w": np.float32([0])})
    merged = average([half, _update("b", 3, w=np.float32([8, 5]))], BASE)
    np.testing.assert_array_equal(merged["w"], np.float32([6, 5]))


def test_every_tensor_is_averaged_over_the_clients_that_trained_it() -> None:
    base = {"w": np.zeros(1, np.float32), "v": np.zeros(1, np.float32)}
    merged = average([_update("a", 1, w=np.float32([2]), v=np.float32([7])), _update("b", 1, w=np.float32([4]))], base)
    assert merged["w"] == 3 and merged["v"] == 7


def test_what_a_client_held_frozen_counts_as_unchanged_where_that_is_asked_for() -> None:
    base = {"w": np.zeros(1, np.float32), "v": np.full(1, 3, np.float32)}
    updates = [_update("b", 1, w=np.float32([2]), v=np.float32([7])), _update("a", 3, w=np.float32([4]))]
    merged = average(updates, base, counts_frozen=True)
    assert merged["w"] == 3.5 and merged["v"] == 4  # (7 + 3 * 3) / 4
    for order in (updates, updates[::-1]):
        np.testing.assert_array_equal(average(order, base, counts_frozen=True)["v"], merged["v"])


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


WIDE, NARROW = Width(ratio=1.0), Width(ratio=0.5)
MOVING = Structure(
    model=("w", "bn.running_mean", "bn.running_var"),
    partition=blocks_of_one_unit(1),
    blocks=(frozenset({"w"}),),
    trained={
        work: {
            "w": TrainedTensor(shape=(4,), role="parameter"),
            "bn.running_mean": TrainedTensor(shape=(2,), role="running_statistic"),
        }
        for work in (WIDE, NARROW)
    },
)
START = {"w": np.full(4, 0.1, np.float32), "bn.running_mean": np.zeros(2, np.float32)}


def _moved(client: str, by: float, statistic: float = 0.0) -> ReceivedUpdate:
    tensors = {"w": START["w"] + np.float32(by), "bn.running_mean": START["bn.running_mean"] + np.float32(statistic)}
    return _update(client, 1, **tensors)


def _odd(*updates: ReceivedUpdate, narrow: str = "") -> dict[str, str]:
    works = {update.client: NARROW if update.client in narrow else WIDE for update in updates}
    return outliers(updates, works, MOVING, START)


def test_an_update_that_moved_eleven_times_as_far_as_the_median_is_named_and_nine_times_is_not() -> None:
    honest = [_moved("a", 0.01), _moved("b", 0.01), _moved("c", 0.01)]
    assert _odd(*honest, _moved("d", 0.09)) == {}
    assert _odd(*honest, _moved("d", 0.11)) == {"d": "moved 11 times as far as the median of its round"}


def test_two_updates_say_nothing_about_which_one_is_odd() -> None:
    assert _odd(_moved("a", 0.001), _moved("b", 1.0)) == {}


def test_running_statistics_of_other_data_do_not_make_an_honest_update_odd() -> None:
    assert _odd(*(_moved(name, 0.01, statistic) for name, statistic in zip("abcd", (1, 1, 1, 5000), strict=True))) == {}


def test_updates_are_compared_with_those_of_the_same_work() -> None:
    wide = [_moved(name, 0.01) for name in "abcde"]
    narrow = [_moved(name, 0.2) for name in "xyz"]
    assert _odd(*wide, *narrow, narrow="xyz") == {}
    assert list(_odd(*wide, *narrow)) == ["x", "y", "z"]
    # Two of a kind are too few for a median of their own: all updates are.
    assert list(_odd(*wide, *narrow[:2], narrow="xyz")) == ["x", "y"]


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_huge_update_is_rejected_however_few_there_are(others: int) -> None:
    honest = [_moved(name, 0.01) for name in "abc"[:others]]
    said = _odd(*honest, _moved("huge", 1e30))
    assert list(said) == ["huge"] and said["huge"].startswith("parameters moved by 1e+30 each, from values of size 0.1")


def test_a_diverged_update_is_rejected_where_a_large_honest_one_is_not() -> None:
    assert _odd(_moved("a", 19.0)) == {} and list(_odd(_moved("a", 21.0))) == ["a"]


def test_a_huge_running_statistic_is_rejected_and_named() -> None:
    assert "running statistic bn.running_mean moved by 1e+30" in _odd(_moved("a", 0.01, 1e30))["a"]


def test_rows_that_were_not_trained_do_not_hide_how_far_the_others_moved() -> None:
    base = {**START, "w": np.full(4, 0.1, np.float32)}
    one = ReceivedUpdate(
        client="a",
        metadata=_update("a", 1).metadata,
        tensors={**_moved("a", 0.0).tensors, "w": base["w"] + np.float32([30, 0, 0, 0])},
        rows={"w": np.array([True, False, False, False])},
    )
    assert "moved by 30 each" in outliers([one], {"a": WIDE}, MOVING, base)["a"]


@pytest.mark.parametrize("extent", [4, 3])
def test_the_order_of_arrival_does_not_change_a_bit(extent: int) -> None:
    # Added in another order these give another sum, in float64 too: 1e20 takes in what is added to it.
    values = [1e20, 3, -1e20, 2]
    updates = [_update(str(i), 1, w=np.full(extent, value, np.float32)) for i, value in enumerate(values)]
    base = {"w": np.zeros(4, np.float32)}
    merged = average(updates, base)["w"]
    assert merged[0] == 0.5
    for order in (updates[::-1], [updates[i] for i in (0, 2, 1, 3)], [updates[i] for i in (3, 0, 1, 2)]):
        np.testing.assert_array_equal(average(order, base)["w"], merged)


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
    variance = next(key for key in good if key.endswith("running_var"))
    assert "variance below zero" in _reason(_update("a", 5, **{**good, variance: good[variance] - 1}))
    assert "started from weights v" in _reason(_update("a", 5, **good), "other")
    assert "no examples" in _reason(_update("a", 0, **good))
    assert reason_to_reject(_update("a", 1, **good), BLOCK_1, STRUCTURE, "v") is None


@pytest.mark.parametrize(
    ("first", "last", "diverged"),
    [(2.3, 22.0, False), (2.3, 24.0, True), (0.01, 9.0, False), (0.01, 11.0, True), (50.0, 400.0, False),
     (2.3, float("nan"), True), (2.3, float("inf"), True), (2.3, -1e9, False)],
)  # fmt: skip
def test_a_training_whose_loss_became_ten_times_the_first_has_diverged(
    first: float, last: float, diverged: bool
) -> None:
    update = _update("a", 5, **_complete())
    said = msgspec.structs.replace(update.metadata, loss_first=first, loss_last=last)
    reason = _reason(replace(update, metadata=said))
    assert has_diverged(reason) == diverged
    assert reason == (f"diverged: its loss went from {first:.3g} to {last:.3g}" if diverged else "None")


def test_an_update_without_a_version_of_its_weights_is_told_so() -> None:
    update = _update("a", 5, **_complete())
    update = replace(update, metadata=msgspec.structs.replace(update.metadata, base_version=""))
    assert _reason(update) == "started from weights without a version, not v"


def test_of_several_wrong_tensors_the_first_by_name_is_told() -> None:
    odd = {name: np.zeros(1, np.float32) for name in ("y", "a0", "x", "z")}
    assert _reason(_update("a", 5, **_complete(), **odd)) == "tensor a0 is missing or not of this block"


def test_only_variances_must_not_be_below_zero() -> None:
    below = {name: tensor if name.endswith("running_var") else tensor - 1 for name, tensor in _complete().items()}
    assert reason_to_reject(_update("a", 5, **below), BLOCK_1, STRUCTURE, "v") is None


def test_the_program_of_the_block_that_says_another_block_is_rejected() -> None:
    update = _update("a", 5, **_complete())
    update = replace(update, metadata=msgspec.structs.replace(update.metadata, block=2))
    assert _reason(update) == "says that grow-block1 trains block 2, not 1"


def test_an_update_of_another_program_of_the_same_block_is_rejected() -> None:
    distilled = distill(STRUCTURE.partition, 1)
    said = reason_to_reject(_update("a", 5, **_complete()), distilled, STRUCTURE, "v")
    assert said == "trained grow-block1, asked for distill-block1"


def test_an_update_of_another_block_is_rejected() -> None:
    said = reason_to_reject(_update("a", 5, **_complete()), grow(STRUCTURE.partition, 2), STRUCTURE, "v")
    assert "trained grow-block1, asked for grow-block2" in str(said)
