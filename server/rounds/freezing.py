"""Freeze a block by effective movement (Wu, Li, Xu, *Breaking the Memory Wall*, KDD 2025)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.fleet.fleet import FreezingSettings

Scalars = NDArray[np.float64]


def sample_scalars(tensors: Mapping[str, NDArray[np.float32]], count: int, seed: int) -> Scalars:
    """`count` scalars of the tensors (all if there are fewer), always the same ones for a seed; float64, [n]."""
    flat = np.concatenate([tensors[name].reshape(-1).astype(np.float64) for name in sorted(tensors)])
    if flat.size <= count:
        return flat
    chosen = np.random.default_rng(seed).choice(flat.size, size=count, replace=False)
    return flat[np.sort(chosen)]


def effective_movement(history: Sequence[Scalars], window: int) -> float | None:
    """||a_k - a_(k-H)||_1 over the length of the path between them, in [0, 1].

    `history` is a_0 .. a_k, one array a round; H is `window`. None before H rounds have passed; 0 where nothing moved.
    """
    if len(history) <= window:
        return None
    recent = history[-window - 1 :]
    path = sum(float(np.abs(after - before).sum()) for before, after in itertools.pairwise(recent))
    return float(np.abs(recent[-1] - recent[0]).sum()) / path if path > 0 else 0.0


def fitted_slope(values: Sequence[float]) -> float:
    """Slope per round of the least-squares line through `values` (two at least), taken at rounds 0, 1, 2, ..."""
    rounds = np.arange(len(values), dtype=np.float64)
    centred = rounds - rounds.mean()
    return float((centred * np.asarray(values)).sum() / (centred**2).sum())


class EffectiveMovementFreezing:
    """Follows one growing step: `observe` the aggregated scalars of the active block after every round."""

    def __init__(self, settings: FreezingSettings, history: Sequence[Scalars] = ()) -> None:
        self._settings = settings
        self._history: list[Scalars] = []
        self.movements: list[float] = []
        self.slope: float | None = None
        self._calm = 0
        self._rounds = -1
        for scalars in history:
            self.observe(scalars)

    def observe(self, scalars: Scalars) -> str | None:
        """Take the scalars after a round (the first call: before any); returns why the block freezes, or None."""
        settings = self._settings
        self._rounds += 1
        self._history = [*self._history, scalars][-settings.window - 1 :]
        movement = effective_movement(self._history, settings.window)
        if movement is not None:
            self.movements.append(movement)
        if len(self.movements) >= settings.fit_length:
            self.slope = fitted_slope(self.movements[-settings.fit_length :])
            self._calm = self._calm + 1 if abs(self.slope) < settings.threshold and self._fallen() else 0
            if self._calm >= settings.patience and self._rounds >= settings.min_rounds:
                return (
                    f"effective movement: |slope| {abs(self.slope):.4f} < {settings.threshold} "
                    f"for {settings.patience} rounds"
                )
        if self._rounds >= settings.max_rounds:
            return f"round cap {settings.max_rounds}"
        return None

    def _fallen(self) -> bool:
        """Whether movement has fallen as far as it is asked to, which every movement has without `fall` and `level`."""
        fall, level = self._settings.fall or 1.0, self._settings.level or 1.0
        return self.movements[-1] <= min(fall * max(self.movements), level)
