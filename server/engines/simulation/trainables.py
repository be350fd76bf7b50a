"""Every piece of work of a model as functions of its tensors, by what clients are asked for."""

from __future__ import annotations

from copy import copy

from device_profiles.model import Partition
from device_profiles.work import Depth, Distill, Growing, Narrow, Sublayers, Width, Work, blocks_of
from edge_runtime.export.models import built_in
from server.engines.simulation.networks import DepthWork, WholeWork
from server.engines.simulation.runs import DistillWork, RunWork
from server.engines.simulation.segments import ModelPieces
from server.engines.simulation.trainable import Trainable
from server.fleet.model import ModelSettings


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
