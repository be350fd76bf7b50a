"""What a piece of work is to the simulation: its loss as a function of the tensors that it trains, and its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from server.engines.simulation.segments import ModelPieces, Segment, State
from server.fleet.structure import TrainedTensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What of a loss differs between tasks: classes that count [classes], DepthFL's weight, and the share of a layer's
    rows before the first that is trained [] (FedPLT)."""

    classes: Tensor | None = None
    consistency: float = 0.0
    first_row: Tensor | None = None


class Trainable(ABC):
    """One piece of work as functions.

    Attributes:
        trained: tensors that come back, with their shapes and roles.
        read: every tensor that is needed, by name; those beside `trained` are frozen.
        prefix: the frozen part before the block, whose outputs may be kept; None where there is none.
    """

    trained: dict[str, TrainedTensor]
    read: frozenset[str]
    prefix: Segment | None = None

    @abstractmethod
    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """Mean loss of a batch; `x` is what `prefix` puts out. Updates running statistics of `state` in place."""

    @abstractmethod
    def answer(self, state: State, x: Tensor) -> Tensor:
        """Logits or log-probabilities of a batch in inference mode; `x` as for `loss`."""


def trained_tensors(pieces: ModelPieces, names: Iterable[str]) -> dict[str, TrainedTensor]:
    """What comes back of tensors of these names: not those that the model keeps fixed."""
    shapes = pieces.source.tensor_shapes(pieces.partition)
    fixed, statistics = pieces.source.fixed, pieces.source.statistics
    return {
        name: TrainedTensor(shape=shapes[name], role="running_statistic" if name in statistics else "parameter")
        for name in dict.fromkeys(names)
        if name in statistics or name not in fixed
    }
