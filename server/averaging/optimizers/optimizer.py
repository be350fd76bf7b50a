"""What a server optimizer is to the rounds: from where the clients started and where they ended on average, to the next
weights."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
State = dict[str, NDArray[Any]]


class ServerOptimizer(Protocol):
    """One way of taking a step; a module each, named in `OPTIMIZERS`.

    Attributes:
        state: tensors that it keeps from round to round, by any names; they are saved with the run.
    """

    state: State

    def step(self, name: str, start: Values, mean: Values) -> Values:
        """The next values of the parameter `name`, of any shape: `start` are those that the round began with, `mean`
        is the clients' average. Their difference is what the literature calls the pseudo-gradient, with its sign
        turned. Running statistics are averaged and never come here."""
