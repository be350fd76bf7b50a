"""From the mean of a round's updates to the next weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.means import Mean
from server.averaging.optimizers.optimizer import ServerOptimizer
from server.fleet.fleet import HeldFrozen


def next_tensors(
    updates: Sequence[ReceivedUpdate],
    base: Mapping[str, NDArray[Any]],
    parameters: frozenset[str],
    optimizer: ServerOptimizer,
    *,
    held_frozen: HeldFrozen = "left-out",
    mean: Mean = average,
) -> dict[str, NDArray[np.float32]]:
    """What was trained, after the round: `parameters` by a step of the server's optimizer, the rest, which are
    statistics, as their `mean`. Values that nobody trained stay as they are in `base`.

    `damped`: a parameter goes from its old value towards the mean over those who trained it, by the square root of
    their share s: of the weights, or of the clients for a `mean` in which examples do not count. The mean of few has a
    variance larger by 1 / s, so that each parameter moves as noisily as one that all have trained. Statistics go by s
    itself: whoever holds a normalisation frozen uses the old ones."""
    result = mean(updates, base, counts_frozen=held_frozen == "unchanged")
    if held_frozen == "damped":
        for name, tensor in result.items():
            share = _share(updates, name, weighted=mean is average)
            result[name] = _damped(tensor, base[name], math.sqrt(share) if name in parameters else share)
    for name in parameters & result.keys():
        start = base[name]
        stepped = optimizer.step(name, start, result[name])
        trained = _trained_values(updates, name, start.shape)
        result[name] = stepped if trained is None else np.where(trained, stepped, start)
    return result


def _share(updates: Sequence[ReceivedUpdate], name: str, *, weighted: bool) -> float:
    """The clients that trained a tensor as a share of all.

    By number where examples do not count in the mean: what a client says of its own must then change nothing, for the
    sake of privacy (`private.py`) or against one that lies (median, trimmed mean).
    """
    weights = {update.client: update.weight if weighted else 1.0 for update in updates}
    return sum(weights[update.client] for update in updates if name in update.tensors) / sum(weights.values())


def _damped(tensor: NDArray[np.float32], start: NDArray[Any], part: float) -> NDArray[np.float32]:
    if part == 1.0:
        return tensor
    old = start.astype(np.float64)
    return (old + (tensor - old) * part).astype(np.float32)


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
