"""What adaptive server optimizers share (Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.averaging.optimizers.optimizer import State, Values

Moment = NDArray[np.float64]


class Adaptive(ABC):
    """Follows mean and size of the clients' moves, value by value, in float64.

    With d the mean move of a round: m = beta1 m + (1 - beta1) d, v as the subclass says, and the step is
    learning_rate m / (sqrt(v) + tau). m starts at 0, v at tau^2; there is no correction of the start, as published.
    """

    def __init__(self, *, learning_rate: float, beta1: float, beta2: float, tau: float) -> None:
        self._learning_rate = learning_rate
        self._beta1 = beta1
        self._beta2 = beta2
        self._tau = tau
        self.state: State = {}

    @abstractmethod
    def second_moment(self, v: Moment, squares: Moment, beta2: float) -> Moment:
        """The next v, from the last one and the squares of this round's move."""

    def step(self, name: str, start: Values, mean: Values) -> Values:
        """A step along the followed moves; where all of them were zero nothing moves."""
        move = mean.astype(np.float64) - start
        m = self._kept(f"m.{name}", move, 0.0)
        v = self._kept(f"v.{name}", move, self._tau**2)
        m = self._beta1 * m + (1 - self._beta1) * move
        v = self.second_moment(v, move**2, self._beta2)
        self.state |= {f"m.{name}": m, f"v.{name}": v}
        return (start + self._learning_rate * m / (np.sqrt(v) + self._tau)).astype(np.float32)

    def _kept(self, key: str, like: Moment, first: float) -> NDArray[Any]:
        kept = self.state.get(key)
        return np.full_like(like, first) if kept is None else kept
