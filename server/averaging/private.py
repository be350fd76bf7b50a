"""The mean of clipped updates with Gaussian noise, and what a run with it tells of a device (DP-FedAvg, McMahan et al.,
ICLR 2018)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import UsageError
from device_profiles.extras import extra_remedy
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.privacy import PrivacySettings


class NoisyMean:
    """Of the moves from `base`, each cut down to `clip_norm`, with noise on their sum; every client counts the same.

    The noise is drawn anew for every round, and from no seed: whoever could draw it again could take it away.
    """

    def __init__(self, settings: PrivacySettings, random: np.random.Generator | None = None) -> None:
        self._clip = settings.clip_norm
        self._deviation = settings.noise_multiplier * settings.clip_norm
        self._random = np.random.default_rng() if random is None else random

    def __call__(
        self, updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]], *, counts_frozen: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """As `average`, for updates of whole tensors."""
        ordered = sorted(updates, key=lambda update: update.client)
        factors = [min(1.0, self._clip / max(_length(update, base), 1e-30)) for update in ordered]
        result = {}
        for name in sorted({name for update in ordered for name in update.tensors}):
            start = base[name].astype(np.float64)
            total = self._random.normal(0.0, self._deviation, start.shape)
            holders = 0
            for update, factor in zip(ordered, factors, strict=True):
                if name in update.tensors:
                    total += (update.tensors[name] - start) * factor
                    holders += 1
            mean = start + total / (len(ordered) if counts_frozen else holders)
            if name.endswith("running_var"):
                # No more is told by this: it follows from what the noise was added to.
                mean = np.maximum(mean, 0.0)
            result[name] = mean.astype(np.float32)
        return result


def _length(update: ReceivedUpdate, base: Mapping[str, NDArray[Any]]) -> float:
    """Of the whole move, over all tensors."""
    squares = (float(np.sum((update.tensors[name] - base[name].astype(np.float64)) ** 2)) for name in update.tensors)
    return math.sqrt(sum(squares))


class PrivacyBudget:
    """The epsilon of the device that took part in most rounds, by the accountant of dp-accounting (Renyi).

    That devices are drawn is not counted in their favour: who was drawn is no secret of the server's.
    """

    def __init__(self, settings: PrivacySettings | None) -> None:
        self._settings = settings
        self._rounds: Counter[str] = Counter()
        if settings is not None:
            _accountant()

    def took_part(self, clients: Iterable[str]) -> float | None:
        """Count a round whose mean holds the updates of `clients`; epsilon after it, None without privacy."""
        if self._settings is None:
            return None
        self._rounds.update(clients)
        return epsilon_of(self._settings, max(self._rounds.values(), default=0))


def epsilon_of(settings: PrivacySettings, rounds: int) -> float:
    """What `rounds` rounds with one device's updates cost it; neighbouring runs are those with and without it."""
    if rounds == 0:
        return 0.0
    rdp, event = _accountant()
    noise = event.GaussianDpEvent(settings.noise_multiplier)
    return float(rdp.RdpAccountant().compose(event.SelfComposedDpEvent(noise, rounds)).get_epsilon(settings.delta))


def _accountant() -> tuple[Any, Any]:
    try:
        from dp_accounting import dp_event, rdp
    except ImportError:
        raise UsageError(
            "[privacy] requires the package dp-accounting, which is not installed",
            remedy=extra_remedy("privacy"),
        ) from None
    logging.getLogger("absl").setLevel(logging.ERROR)
    return rdp, dp_event
