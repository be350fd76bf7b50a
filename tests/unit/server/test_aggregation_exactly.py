"""Averages whose every choice shows in a number."""

from __future__ import annotations

import numpy as np

from device_profiles.update import UpdateMetadata
from server.averaging.aggregation import ReceivedUpdate, average


def _update(client: str, rows: dict[str, np.ndarray] | None = None, **tensors: np.ndarray) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=1, program="grow-block1", examples=1, steps=1, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors, rows=rows or {})


def test_tensors_come_in_the_order_of_their_names() -> None:
    names = [f"w{number}" for number in range(50)]
    base = {name: np.zeros(1, np.float32) for name in names}
    assert list(average([_update("a", **base)], base)) == sorted(names)


def test_those_who_held_a_tensor_frozen_are_added_in_their_places() -> None:
    base = {"w": np.zeros(1, np.float32), "v": np.full(1, 3, np.float32)}
    one = np.ones(1, np.float32)
    updates = [_update("a", v=one * 1e20), _update("b", w=one), _update("c", v=one * -1e20)]
    for order in (updates, updates[::-1]):
        assert average(order, base, counts_frozen=True)["v"] == 0  # 1e20 takes in the 3 of the base before it is gone


def test_rows_that_were_not_trained_stay_as_they_are() -> None:
    base = {"w": np.float32([1, 2])}
    update = _update("a", {"w": np.array([True, False])}, w=np.float32([5, 9]))
    np.testing.assert_array_equal(average([update], base)["w"], np.float32([5, 2]))
