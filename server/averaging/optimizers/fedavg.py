"""FedAvg: the clients' mean, or a part of the way to it."""

from __future__ import annotations

import numpy as np

from server.averaging.optimizers.optimizer import State, Values


class FedAvg:
    """The mean of the clients (McMahan et al., AISTATS 2017), or `learning_rate` of the way to it."""

    def __init__(self, learning_rate: float = 1.0) -> None:
        self._learning_rate = learning_rate
        self.state: State = {}

    def step(self, name: str, start: Values, mean: Values) -> Values:
        """`mean`, or what lies between."""
        if self._learning_rate == 1.0:
            return mean
        move = mean.astype(np.float64) - start
        return (start + self._learning_rate * move).astype(np.float32)
