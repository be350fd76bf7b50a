"""The order of examples, from the seed and the epoch alone, so that a resumed run continues with the same batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A permutation of 0..count-1: the examples sorted by a hash of (seed, epoch, example).

    The hash is SplitMix64's finaliser (Steele, Lea, Flood, 2014). `numpy.random` would do the same, but costs 2.3 MB of
    resident memory, and its shuffles may change between releases.
    """
    start = _mix(_mix(seed & _MASK) ^ (epoch & _MASK))
    keys = np.arange(1, count + 1, dtype=np.uint64)
    keys *= np.uint64(_GOLDEN)
    keys += np.uint64(start)
    keys ^= keys >> np.uint64(30)
    keys *= np.uint64(_MIX_1)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(_MIX_2)
    keys ^= keys >> np.uint64(31)
    return keys.argsort(kind="stable")


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


class Batches:
    """Indices of the batch of any step. The last examples of an epoch that do not fill a batch are left out."""

    def __init__(self, *, seed: int, examples: int, batch: int) -> None:
        self._seed = seed
        self._examples = examples
        self._batch = batch
        self.per_epoch = examples // batch
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Examples of `step` (0-based, counted over all epochs)."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = epoch_order(self._seed, epoch, self._examples)
            self._epoch = epoch
        return self._order[position * self._batch : (position + 1) * self._batch]
