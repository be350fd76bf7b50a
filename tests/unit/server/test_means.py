"""Trimmed means and medians of updates, compared with numpy's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_profiles.update import UpdateMetadata
from server.averaging import means
from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.means import mean_of, median, trimmed_mean
from server.averaging.spool import Spool
from server.fleet.fleet import TrainingSettings

SHAPE = (3, 5)
BASE = {"w": np.full(SHAPE, 0.5, np.float32), "b": np.zeros((), np.float32)}


def _update(client: str, tensors: Mapping[str, NDArray[Any]], **more: Any) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1,
        program="grow-block1",
        examples=1 + 7 * ord(client),
        steps=1,
        base_version="",
        loss_first=0.0,
        loss_last=0.0,
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors, **more)


def _updates(count: int, seed: int = 0) -> list[ReceivedUpdate]:
    random = np.random.default_rng(seed)
    names = [chr(ord("a") + number) for number in range(count)]
    return [
        _update(name, {key: random.standard_normal(v.shape).astype(np.float32) for key, v in BASE.items()})
        for name in names
    ]


def _stacked(updates: list[ReceivedUpdate], name: str) -> NDArray[np.float64]:
    return np.stack([np.float64(update.tensors[name]) for update in updates])


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_median_is_numpys(count: int) -> None:
    updates = _updates(count)
    found = median(updates, BASE)
    for name in BASE:
        assert found[name].dtype == np.float32 and found[name].shape == BASE[name].shape
        np.testing.assert_array_equal(found[name], np.median(_stacked(updates, name), axis=0).astype(np.float32))


@pytest.mark.parametrize(("count", "share", "left_out"), [(10, 0.3, 3), (10, 0.1, 1), (9, 0.1, 0), (1, 0.4, 0)])
def test_the_trimmed_mean_leaves_out_whole_clients_at_both_ends(count: int, share: float, left_out: int) -> None:
    updates = _updates(count)
    found = trimmed_mean(updates, BASE, share=share)
    for name in BASE:
        kept = np.sort(_stacked(updates, name), axis=0)[left_out : count - left_out]
        np.testing.assert_allclose(found[name], kept.mean(axis=0), rtol=1e-6)


def test_a_client_of_five_moves_neither_far_however_large_its_values_are() -> None:
    updates = _updates(5)
    hostile = [*updates[:4], _update("e", {name: np.full(v.shape, 1e30, np.float32) for name, v in BASE.items()})]
    for found in (median(hostile, BASE), trimmed_mean(hostile, BASE, share=0.2)):
        assert all(np.abs(tensor).max() < 4 for tensor in found.values())
    assert np.abs(average(hostile, BASE)["w"]).min() > 1e28


def test_the_order_of_the_updates_and_the_size_of_the_pieces_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = _updates(6)
    whole = trimmed_mean(updates, BASE, share=0.2)
    monkeypatch.setattr(means, "_VALUES", 4)
    pieces = trimmed_mean(updates[::-1], BASE, share=0.2)
    assert all(np.array_equal(whole[name], pieces[name]) for name in BASE)


def test_updates_in_files_give_the_same(tmp_path: Path) -> None:
    updates = _updates(4)
    spool = Spool(tmp_path)
    read = median([spool.put(update) for update in updates], BASE)
    assert all(np.array_equal(read[name], tensor) for name, tensor in median(updates, BASE).items())


def test_who_held_a_tensor_frozen_counts_with_what_it_was() -> None:
    a, b, c = _updates(3)
    frozen = _update("c", {"b": c.tensors["b"]})
    alone, counted = median([a, b, frozen], BASE), median([a, b, frozen], BASE, counts_frozen=True)
    np.testing.assert_array_equal(alone["w"], np.median(_stacked([a, b], "w"), axis=0).astype(np.float32))
    with_base = np.stack([*_stacked([a, b], "w"), np.float64(BASE["w"])])
    np.testing.assert_array_equal(counted["w"], np.median(with_base, axis=0).astype(np.float32))


def test_parts_of_a_tensor_count_where_they_are_and_what_nobody_trained_stays() -> None:
    a, b = _updates(2)
    small = _update("b", {"w": b.tensors["w"][:2, :3]}, rows={"w": np.array([True, False])})
    part = _update("a", {"w": a.tensors["w"][:2]})
    found = median([part, small], BASE)["w"]
    both = (a.tensors["w"][0, :3].astype(np.float64) + b.tensors["w"][0, :3]) / 2
    np.testing.assert_allclose(found[0, :3], both, rtol=1e-6)
    np.testing.assert_array_equal(found[0, 3:], a.tensors["w"][0, 3:])
    np.testing.assert_array_equal(found[1], a.tensors["w"][1])
    np.testing.assert_array_equal(found[2], BASE["w"][2])


def test_the_fleet_file_names_it() -> None:
    updates = _updates(10)
    trimmed = mean_of(TrainingSettings(aggregation="trimmed_mean", trim=0.3))(updates, BASE)
    assert np.array_equal(trimmed["w"], trimmed_mean(updates, BASE, share=0.3)["w"])
    assert np.array_equal(
        mean_of(TrainingSettings(aggregation="median"))(updates, BASE)["w"], median(updates, BASE)["w"]
    )
    assert mean_of(TrainingSettings()) is average
