"""From the mean of a round's updates to the next weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.means import Mean
from server.averaging.optimizers.optimizer import ServerOptimizer


def next_tensors(
    updates: Sequence[ReceivedUpdate],
    base: Mapping[str, NDArray[Any]],
    parameters: frozenset[str],
    optimizer: ServerOptimizer,
    *,
    counts_frozen: bool = False,
    mean: Mean = average,
) -> dict[str, NDArray[np.float32]]:
    """What was trained, after the round: `parameters` by a step of the server's optimizer, the rest, which are
    statistics, as their `mean`. Values that nobody trained stay as they are in `base`."""
    result = mean(updates, base, counts_frozen=counts_frozen)
    for name in parameters & result.keys():
        start = base[name]
        stepped = optimizer.step(name, start, result[name])
        trained = _trained_values(updates, name, start.shape)
        result[name] = stepped if trained is None else np.where(trained, stepped, start)
    return result


def _trained_values(updates: Sequence[ReceivedUpdate], name: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Which values of a tensor somebody trained; None for all."""
    holders = [update for update in updates if name in update.tensors]
    if any(update.shape(name) == shape and name not in update.rows for update in holders):
        return None
    trained = np.zeros(shape, np.bool_)
    for update in holders:
        own = update.shape(name)
        rows = update.rows.get(name, np.ones(own[:1], np.bool_))
        trained[tuple(slice(extent) for extent in own)] |= rows.reshape(-1, *(1,) * (len(own) - 1))
    return trained
