"""What a piece of work computes: its loss as a function of the tensors that it trains, and its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from device_profiles.contract import STAND_IN_PREFIX, stand_in_name
from device_profiles.model import Partition
from device_profiles.work import (
    Depth,
    Distill,
    Growing,
    Narrow,
    Sublayers,
    Width,
    Work,
    block_of,
    blocks_of,
    first_trained_unit,
)
from edge_runtime.export.models import built_in
from server.engines.simulation.segments import ModelPieces, Segment, State
from server.fleet.fleet import ModelSettings
from server.fleet.structure import TrainedTensor

_STATISTICS = ("running_mean", "running_var")
_DEPTH_PREFIX = "depth_classifier.block"


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


class RunWork(Trainable):
    """A run of units that ends with a block, perhaps an empty one, and the output module behind it, trained with
    cross-entropy."""

    def __init__(self, pieces: ModelPieces, work: Growing) -> None:
        block, first, last = block_of(work, pieces.partition), first_trained_unit(work), work.last_unit
        self.prefix = pieces.units(0, first - 1, training=False) if first > 0 else None
        self._parts = _run_and_output(pieces, first, last, block, training=True)
        self._answer = _run_and_output(pieces, first, last, block, training=False)
        names = [name for part in self._parts for name in part.names]
        self.trained = _trained(pieces, names)
        self.read = frozenset(names) | frozenset(self.prefix.names if self.prefix else ())

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """Cross-entropy of the last block's logits."""
        for part in self._parts:
            x = part({**frozen, **state}, x)
        return functional.cross_entropy(x, labels)

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
        self.trained = _trained(pieces, own)
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
        self.trained = _trained(pieces, names)
        self.read = frozenset(names)
        self.head = tuple(name for name in self.training_parts[1].names if not name.endswith(_STATISTICS))
        self.masked = masked
        self.calibrated = calibrated
        self.trained_rows = trained_rows

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """Cross-entropy over the classes that count."""
        if terms.first_row is not None:
            state = {**state, **self._with_frozen_rows(state, frozen, terms.first_row)}
        for part in self.training_parts:
            x = part({**frozen, **state}, x)
        if self.masked and terms.classes is not None:
            x = torch.where(terms.classes, x, 0.0)
        return functional.cross_entropy(x, labels)

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
        self._training = [pieces.run(block, block, training=True) for block in range(1, depth + 1)]
        self._inference = [pieces.run(block, block, training=False) for block in range(1, depth + 1)]
        self._own = pieces.blocks
        self._heads = {t: pieces.behind(pieces.blocks, training=t) for t in (True, False)}
        names = [name for part in self._training for name in part.names]
        if depth == pieces.blocks:
            names += self._heads[True].names
        self.trained = _trained(pieces, names)
        for block in range(1, min(depth, pieces.blocks - 1) + 1):
            channels = pieces.source.model.units[pieces.partition.blocks[block - 1].last_unit].output_shape[0]
            shapes = {"weight": (pieces.source.classes, channels), "bias": (pieces.source.classes,)}
            for kind, shape in shapes.items():
                self.trained[f"{_DEPTH_PREFIX}{block}.{kind}"] = TrainedTensor(shape=shape, role="parameter")
        self.read = frozenset(self.trained) | frozenset(names)

    def loss(self, state: State, frozen: State, x: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        """Sum of cross-entropies, and how far every classifier is from the mean of the others (Kullback-Leibler)."""
        logits = self._logits({**frozen, **state}, x, training=True)
        loss = torch.stack([functional.cross_entropy(own, labels) for own in logits]).sum()
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


def _run_and_output(pieces: ModelPieces, first: int, last: int, block: int, *, training: bool) -> tuple[Segment, ...]:
    run = (pieces.units(first, last, training=training),) if first <= last else ()
    return (*run, pieces.behind(block, training=training))


def _trained(pieces: ModelPieces, names: list[str]) -> dict[str, TrainedTensor]:
    shapes = pieces.source.tensor_shapes(pieces.partition)
    fixed, statistics = pieces.source.fixed, pieces.source.statistics
    return {
        name: TrainedTensor(shape=shapes[name], role="running_statistic" if name in statistics else "parameter")
        for name in dict.fromkeys(names)
        if name in statistics or name not in fixed
    }


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


class TrainableSet:
    """Every piece of work of a model, made when it is first asked for."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self.pieces = ModelPieces(settings)
        self._narrower: dict[int, ModelPieces] = {}
        self._made: dict[Work, Trainable] = {}

    def cut_into(self, partition: Partition) -> TrainableSet:
        """The same model, cut into other blocks."""
        other = copy(self)
        other.pieces = self.pieces.cut_into(partition)
        other._made = {}
        return other

    def of(self, work: Work) -> Trainable:
        """The functions of `work`."""
        if work not in self._made:
            self._made[work] = self._make(work)
        return self._made[work]

    def _make(self, work: Work) -> Trainable:
        if isinstance(work, Growing):
            return RunWork(self.pieces, work)
        blocks = blocks_of(work, self.pieces.partition)
        if blocks is not None and isinstance(work, Distill):
            return DistillWork(self.pieces, blocks[1])
        if blocks is not None and isinstance(work, Depth):
            return DepthWork(self.pieces, blocks[1])
        hetero = isinstance(work, Width)
        rows = work.ratio if isinstance(work, Sublayers) else 1.0
        return WholeWork(self.pieces_of(work), masked=hetero, calibrated=hetero, trained_rows=rows)

    def pieces_of(self, work: Work) -> ModelPieces:
        """The model that `work` is a part of: the full one, or a narrower one."""
        if not isinstance(work, (Narrow, Width)) or work.ratio == 1.0:
            return self.pieces
        width = narrower_width(self._settings, work.ratio)
        if width not in self._narrower:
            self._narrower[width] = ModelPieces(self._settings, width=width)
        return self._narrower[width]


def narrower_width(settings: ModelSettings, ratio: float) -> int:
    """Channels of the first convolution at `ratio` of the model's, rounded down, at least 1; raises UsageError for a
    model without a width."""
    full = built_in(settings.name).width if settings.width is None else settings.width
    return max(1, int(full * ratio))
