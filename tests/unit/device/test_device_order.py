"""The order of examples: a permutation that the seed and the epoch decide, on every machine the same."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.device import _native
from edge_runtime.device.worker.batches import Batches, epoch_start


def epoch_order(seed: int, epoch: int, count: int) -> list[int]:
    return _native.Order(epoch_start(seed, epoch), count).batch(0, count)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
@pytest.mark.parametrize("seed", [0, 1, -5, 1 << 70])
def test_every_epoch_is_a_permutation(seed: int, count: int) -> None:
    assert sorted(epoch_order(seed, 3, count)) == list(range(count))


def test_the_order_never_changes_between_releases() -> None:
    # A checkpoint of an older release continues with the same batches; these numbers are part of its format.
    assert epoch_order(0, 0, 8) == [0, 7, 2, 5, 4, 6, 3, 1]
    assert epoch_order(7, 2, 8) == [2, 5, 6, 3, 0, 7, 4, 1]


def test_seed_and_epoch_give_other_orders() -> None:
    orders = {tuple(epoch_order(seed, epoch, 100)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_positions_are_even_over_many_epochs() -> None:
    first = np.bincount([epoch_order(1, epoch, 10)[0] for epoch in range(2000)], minlength=10)
    # 200 expected each, standard deviation 13.4: five of them.
    assert (abs(first - 200) < 67).all()


def test_batches_walk_through_epochs_and_leave_the_rest_out() -> None:
    batches = Batches(_native, seed=4, examples=11, batch=3)
    assert batches.per_epoch == 3
    first = [example for step in range(3) for example in batches.indices(step)]
    assert first == epoch_order(4, 0, 11)[:9]
    assert batches.indices(5) == epoch_order(4, 1, 11)[6:9]
    assert batches.indices(0) == first[:3]
