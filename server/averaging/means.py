"""What updates are averaged by: their mean weighted by examples, or a statistic of each value by itself that
a few clients cannot move far (Yin et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.averaging.aggregation import ReceivedUpdate, average, corner
from server.averaging.file_tensors import ChangedTensors, values_of
from server.averaging.private import NoisyMean
from server.fleet.fleet import TrainingSettings
from server.fleet.privacy import PrivacySettings

_VALUES = 1 << 18
"""Of a tensor, what is compared at once: so many values of every client are in memory."""
LeftOut = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From how many clients have a value to how many of them are left out at either end."""


class Mean(Protocol):
    """From updates to one value for each that somebody trained."""

    def __call__(
        self, updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]], *, counts_frozen: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """As `average` in `aggregation.py`, whose mean is weighted."""


def mean_of(settings: TrainingSettings, privacy: PrivacySettings | None = None) -> Mean:
    """The one that `training.aggregation` names, or with `privacy` the noisy one."""
    if privacy is not None:
        return NoisyMean(privacy)
    if settings.aggregation == "trimmed_mean":
        return partial(trimmed_mean, share=settings.trim)
    return median if settings.aggregation == "median" else average


def trimmed_mean(
    updates: Sequence[ReceivedUpdate],
    base: Mapping[str, NDArray[Any]],
    *,
    share: float,
    counts_frozen: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """The mean of every value without the largest and the smallest `share` of the clients that trained it, each rounded
    down to whole clients. Examples do not count."""
    # A share such as 0.3 of 10 clients is 3, and not what is left of it in binary.
    return _each(updates, base, lambda counts: np.floor(share * counts + 1e-9).astype(np.int64), counts_frozen)


def median(
    updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]], *, counts_frozen: bool = False
) -> dict[str, NDArray[np.float32]]:
    """The median of every value over the clients that trained it; of an even number, the mean of the two middle ones.
    Examples do not count."""
    return _each(updates, base, lambda counts: np.maximum(counts - 1, 0) // 2, counts_frozen)


def _each(
    updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]], left_out: LeftOut, counts_frozen: bool
) -> dict[str, NDArray[np.float32]]:
    ordered = sorted(updates, key=lambda update: update.client)
    names = sorted({name for update in ordered for name in update.tensors})
    return {name: _tensor(name, ordered, base[name], left_out, counts_frozen) for name in names}


def _tensor(
    name: str, updates: Sequence[ReceivedUpdate], base: NDArray[Any], left_out: LeftOut, counts_frozen: bool
) -> NDArray[np.float32]:
    holders = [update for update in updates if name in update.tensors]
    frozen = len(updates) - len(holders) if counts_frozen else 0
    start = base.reshape(-1)
    result = np.empty(start.shape, np.float32)
    whole = all(update.shape(name) == base.shape and name not in update.rows for update in holders)
    # What is no whole tensor, or changed when it is read, is read once.
    read = {
        update.client: _in_place(update, name, base.shape)
        for update in holders
        if not whole or isinstance(update.tensors, ChangedTensors)
    }
    for first in range(0, len(start), _VALUES):
        last = min(first + _VALUES, len(start))
        rows = [
            read[update.client][first:last] if update.client in read else values_of(update.tensors, name, first, last)
            for update in holders
        ]
        values = np.stack([*rows, *[start[first:last]] * frozen]).astype(np.float64)
        result[first:last] = _middle(values, start[first:last], left_out)
    return result.reshape(base.shape)


def _in_place(update: ReceivedUpdate, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A tensor as one row of the whole one's values, NaN where this client trained nothing."""
    tensor = update.tensors[name]
    values = np.full(shape, np.nan)
    rows = np.asarray(update.rows.get(name, True)).reshape(-1, *(1,) * (tensor.ndim - 1))
    values[corner(tensor)] = np.where(rows, tensor, np.nan)
    return values.reshape(-1)


def _middle(values: NDArray[np.float64], start: NDArray[Any], left_out: LeftOut) -> NDArray[np.float64]:
    """The mean of what is not left out, [m] of values [clients, m], NaN where a client has none; `start` where nobody
    has."""
    values.sort(axis=0)  # NaN to the end
    counts = np.count_nonzero(~np.isnan(values), axis=0)
    low = left_out(counts)
    places = np.arange(len(values))[:, None]
    kept = (places >= low) & (places < counts - low)
    total = np.where(kept, values, 0.0).sum(axis=0)
    result = start.astype(np.float64)
    np.divide(total, counts - 2 * low, out=result, where=counts > 0)
    return result
