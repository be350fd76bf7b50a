"""Whole networks: full, with fewer channels, with some of its rows frozen, or the first blocks with classifiers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from server.engines.simulation.losses import loss_of
from server.engines.simulation.segments import ModelPieces, State
from server.engines.simulation.trainable import Terms, Trainable, trained_tensors
from server.fleet.structure import TrainedTensor

_STATISTICS = ("running_mean", "running_var")
_DEPTH_PREFIX = "depth_classifier.block"


class WholeWork(Trainable):
    """The whole network, perhaps with fewer channels.

    `trained_rows`: the share of the rows of every parameter that is trained, the others stay as they are in `frozen`.
    `masked`: classes that a client lacks are left out of its loss. `calibrated`: running statistics are not trained,
    but taken for evaluation (static BatchNorm of HeteroFL).
    """

    def __init__(
        self, pieces: ModelPieces, *, masked: bool = False, calibrated: bool = False, trained_rows: float = 1.0
    ) -> None:
        self.training_parts = (
            pieces.run(1, pieces.blocks, training=True),
            pieces.behind(pieces.blocks, training=True),
        )
        self._answer = (pieces.run(1, pieces.blocks, training=False), pieces.behind(pieces.blocks, training=False))
        names = [name for part in self.training_parts for name in part.names]
        self.trained = trained_tensors(pieces, names)
        self.read = frozenset(names)
        self.head = tuple(name for name in self.training_parts[1].names if not name.endswith(_STATISTICS))
        self._minimised = pieces.minimised
        self.masked = masked
        self.calibrated = calibrated
        self.trained_rows = trained_rows

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """The loss, over the classes that count where labels are masked."""
        if terms.first_row is not None:
            state = {**state, **self._with_frozen_rows(state, frozen, terms.first_row)}
        for part in self.training_parts:
            x = part({**frozen, **state}, x)
        if self.masked and terms.classes is not None:
            x = torch.where(terms.classes, x, 0.0)
        return loss_of(x, labels, self._minimised)

    def answer(self, state: State, x: Tensor) -> Tensor:
        """Logits."""
        for part in self._answer:
            x = part(state, x)
        return x

    def _with_frozen_rows(self, state: State, frozen: State, first: Tensor) -> dict[str, Tensor]:
        """The parameters, with the rows that are not trained as they are in `frozen`."""
        mixed = {}
        for name, tensor in self.trained.items():
            if tensor.role == "parameter":
                rows = rows_of(tensor.shape[0], first, self.trained_rows).reshape(-1, *(1,) * (len(tensor.shape) - 1))
                mixed[name] = torch.where(rows, state[name], frozen[name])
        return mixed


def rows_of(count: int, first: Tensor, share: float) -> Tensor:
    """Which of `count` rows are among the `share` of them that begins at the share `first` and goes on around the end
    [count]; a row belongs to where its middle lies."""
    middles = (torch.arange(count, device=first.device) + 0.5) / count
    return (middles - first) % 1.0 < share


class DepthWork(Trainable):
    """The first blocks with a classifier behind each: pooling and a linear layer, the last one the model's own head."""

    def __init__(self, pieces: ModelPieces, depth: int) -> None:
        self._depth = depth
        self._minimised = pieces.minimised
        self._training = [pieces.run(block, block, training=True) for block in range(1, depth + 1)]
        self._inference = [pieces.run(block, block, training=False) for block in range(1, depth + 1)]
        self._own = pieces.blocks
        self._heads = {t: pieces.behind(pieces.blocks, training=t) for t in (True, False)}
        names = [name for part in self._training for name in part.names]
        if depth == pieces.blocks:
            names += self._heads[True].names
        self.trained = trained_tensors(pieces, names)
        for block in range(1, min(depth, pieces.blocks - 1) + 1):
            channels = pieces.source.model.units[pieces.partition.blocks[block - 1].last_unit].output_shape[0]
            shapes = {"weight": (pieces.source.classes, channels), "bias": (pieces.source.classes,)}
            for kind, shape in shapes.items():
                self.trained[f"{_DEPTH_PREFIX}{block}.{kind}"] = TrainedTensor(shape=shape, role="parameter")
        self.read = frozenset(self.trained) | frozenset(names)

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """Sum of cross-entropies, and how far every classifier is from the mean of the others (Kullback-Leibler)."""
        logits = self._logits({**frozen, **state}, x, training=True)
        loss = torch.stack([loss_of(own, labels, self._minimised) for own in logits]).sum()
        if len(logits) == 1 or terms.consistency == 0:
            return loss
        expected = [functional.softmax(own.detach(), 1) for own in logits]
        pairs = [
            functional.kl_div(functional.log_softmax(own, 1), other, reduction="batchmean")
            for i, own in enumerate(logits)
            for j, other in enumerate(expected)
            if i != j
        ]
        return loss + terms.consistency * torch.stack(pairs).sum() / (len(logits) - 1)

    def answer(self, state: State, x: Tensor) -> Tensor:
        """Logarithm of the classifiers' mean probabilities."""
        probabilities = [functional.softmax(own, 1) for own in self._logits(state, x, training=False)]
        return torch.stack(probabilities).mean(0).log()

    def _logits(self, state: State, x: Tensor, *, training: bool) -> list[Tensor]:
        logits = []
        for block, part in enumerate(self._training if training else self._inference, start=1):
            x = part(state, x)
            if block == self._own:
                logits.append(self._heads[training](state, x))
                continue
            pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
            name = f"{_DEPTH_PREFIX}{block}"
            logits.append(functional.linear(pooled, state[f"{name}.weight"], state[f"{name}.bias"]))
        return logits


def initial_classifiers(work: Iterable[Trainable], seed: int) -> dict[str, Tensor]:
    """Weights of DepthFL's classifiers, drawn as a linear layer's are."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for trainable in work:
        for name, tensor in trainable.trained.items():
            if name.startswith(_DEPTH_PREFIX) and name not in drawn:
                inputs = trainable.trained[name.rsplit(".", 1)[0] + ".weight"].shape[1]
                drawn[name] = (torch.rand(tensor.shape, generator=generator) * 2 - 1) * inputs**-0.5
    return drawn
