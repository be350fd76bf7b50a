"""Runs of units behind a frozen prefix: trained with the output module behind them, or distilled into a stand-in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from device_profiles.contract import STAND_IN_PREFIX, stand_in_name
from device_profiles.work import Growing, block_of, first_trained_unit
from server.engines.simulation.losses import loss_of
from server.engines.simulation.segments import ModelPieces, Segment, State
from server.engines.simulation.trainable import Terms, Trainable, trained_tensors


class RunWork(Trainable):
    """A run of units that ends with a block, perhaps an empty one, and the output module behind it, trained with
    the fleet's loss."""

    def __init__(self, pieces: ModelPieces, work: Growing) -> None:
        block, first, last = block_of(work, pieces.partition), first_trained_unit(work), work.last_unit
        self.prefix = pieces.units(0, first - 1, training=False) if first > 0 else None
        self._parts = _run_and_output(pieces, first, last, block, training=True)
        self._minimised = pieces.minimised
        self._answer = _run_and_output(pieces, first, last, block, training=False)
        names = [name for part in self._parts for name in part.names]
        self.trained = trained_tensors(pieces, names)
        self.read = frozenset(names) | frozenset(self.prefix.names if self.prefix else ())

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """The loss of the last block's logits."""
        for part in self._parts:
            x = part({**frozen, **state}, x)
        return loss_of(x, labels, self._minimised)

    def answer(self, state: State, x: Tensor) -> Tensor:
        """Logits of the model up to the block."""
        for part in self._answer:
            x = part(state, x)
        return x


class DistillWork(Trainable):
    """The stand-in of a block, trained to give the logits that the block gives; with the last one, the head as well."""

    def __init__(self, pieces: ModelPieces, block: int) -> None:
        self.prefix = pieces.run(1, block - 1, training=False) if block > 1 else None
        self._teacher = (pieces.run(block, block, training=False), pieces.behind(block, training=False))
        last = block == pieces.blocks
        # A head that stays frozen answers as the teacher's does.
        self._student = pieces.behind(block - 1, training=last)
        own = [stand_in_name(block)]
        if last:
            own += [name for name in self._student.names if not name.startswith(STAND_IN_PREFIX)]
        self.trained = trained_tensors(pieces, own)
        parts = (*self._teacher, self._student, *((self.prefix,) if self.prefix else ()))
        self.read = frozenset(name for part in parts for name in part.names)

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """Mean squared difference of the logits, the block's taken in inference mode and without gradients."""
        with torch.no_grad():
            expected = x
            for part in self._teacher:
                expected = part(frozen, expected)
        return functional.mse_loss(self._student({**frozen, **state}, x), expected)

    def answer(self, state: State, x: Tensor) -> Tensor:
        """A stand-in has no answer of its own."""
        raise NotImplementedError("a stand-in is evaluated as part of the step before")


def _run_and_output(pieces: ModelPieces, first: int, last: int, block: int, *, training: bool) -> tuple[Segment, ...]:
    run = (pieces.units(first, last, training=training),) if first <= last else ()
    return (*run, pieces.behind(block, training=training))
