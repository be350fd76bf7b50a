"""Where a model is cut into a number of blocks: so that the largest predicted peak is as small as possible.

A block's peak is predicted from what its training step must hold at once: its parameters with their momentum, every
output that the backward pass finds as it was, and the largest activation with its gradient on top. That leaves out what
all blocks have alike. Cuts do not depend on the batch of an export: they are those for a batch of 32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from device_profiles.errors import UsageError
from device_profiles.manifest import Optimizer
from device_profiles.model import Partition
from edge_runtime.export.cut.tied import places_apart
from edge_runtime.export.cut.units import UnitLayers, partition_of
from edge_runtime.export.passes.views import BY_TOKEN
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.runs import Run, TrainingChoices, step_of
from edge_runtime.export.step.train_step import StepVariant

_BATCH = 32
_FLOAT_BYTES = 4
_NONE = (1 << 62, 0, 0)
_COPIES = 2
"""Of a parameter: itself and its momentum. Gradients go straight into the update."""


def balanced_partition(source: BlockModel, blocks: int) -> Partition:
    """`blocks` runs of consecutive units, none of which shares a tensor with another.

    Raises UsageError, naming the option, where there are not that many.
    """
    count = len(source.cut.units)
    places = [*places_apart(source.cut, source.fixed), count]
    if not 1 <= blocks <= len(places):
        raise UsageError(
            f"the model has {_possible(count, len(places))} possible",
            field="blocks",
            value=blocks,
            remedy=f"`profl-edge models --model {source.name}` shows the units and where it cannot be cut",
        )
    ours = [place for place in places[:-1] if not _is_in_pytorch(source.cut.units[place - 1].output)]
    if len(places) - len(ours) >= blocks:
        places = [place for place in places if place not in ours]
    ends = _fewest_bytes(_Peaks(units=_held_by_units(source), places=(0, *places)), blocks)
    return partition_of([(first, after - 1) for first, after in itertools.pairwise([0, *ends])], count)


def single_partition(source: BlockModel) -> Partition:
    """As many blocks as there can be: one a unit, but for units that share a tensor."""
    count = len(source.cut.units)
    bounds = [0, *places_apart(source.cut, source.fixed), count]
    return partition_of([(first, after - 1) for first, after in itertools.pairwise(bounds)], count)


def _is_in_pytorch(activation: str) -> bool:
    """Whether PyTorch's own graph has an activation, so that other targets can be cut there as well."""
    return "." not in activation.removesuffix(BY_TOKEN)


def _possible(units: int, most: int) -> str:
    if most == units:
        return f"{units} units, so 1 to {units} blocks are" if units > 1 else "one unit, so only 1 block is"
    return (
        f"{units} units, some of which share tensors, so {f'1 to {most} blocks are' if most > 1 else 'only 1 block is'}"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """Bytes that a unit adds to the peak of its block, and that the largest of its layers adds on top."""

    bytes: int
    largest: int


@dataclass(frozen=True, kw_only=True)
class _Peaks:
    """Predicted peaks of the blocks between any two of `places`, which are numbers of units."""

    units: Sequence[_Held]
    places: Sequence[int]

    @cached_property
    def table(self) -> list[list[int]]:
        """Row a, column b: the block from place a to place b; without meaning where b is not behind a."""
        rows = []
        for first in self.places:
            row, peak, largest, done = [], 0, 0, first
            for after in self.places:
                for unit in self.units[done:after]:
                    peak += unit.bytes
                    largest = max(largest, unit.largest)
                done = max(done, after)
                row.append(peak + largest)
            rows.append(row)
        return rows


def _fewest_bytes(peaks: _Peaks, blocks: int) -> list[int]:
    """The ends of `blocks` blocks with the smallest largest peak, the others as even as that allows."""
    table, count = peaks.table, len(peaks.places)
    # By number of blocks and place: the largest peak up to there, the sum of squares, the place before.
    best: list[list[tuple[int, int, int]]] = [[(0, 0, 0)] + [_NONE] * (count - 1)]
    for done in range(1, blocks + 1):
        known, row = best[-1], [_NONE] * count
        for after in range(done, count - blocks + done):
            row[after] = min(
                (max(known[first][0], table[first][after]), known[first][1] + table[first][after] ** 2, first)
                for first in range(done - 1, after)
            )
        best.append(row)
    ends, place = [], count - 1
    for row in reversed(best[1:]):
        ends.append(peaks.places[place])
        place = row[place][2]
    return ends[::-1]


def _held_by_units(source: BlockModel) -> list[_Held]:
    units = source.cut.units
    choices = TrainingChoices(optimizer=Optimizer(name="sgd", momentum=0.9))
    graph = step_of(source, Run(first_unit=0, last_unit=len(units) - 1), choices)(StepVariant())
    kept = frozenset(graph.kept)
    return [_held(source, unit, kept) for unit in units]


def _held(source: BlockModel, unit: UnitLayers, kept: frozenset[str]) -> _Held:
    """A tensor that is no activation of the batch, such as a table of positions, counts once for each example too."""
    sizes = {spec.name: spec.bytes for spec in source.tensors}
    outputs = {layer.output: math.prod(layer.shape) * _FLOAT_BYTES * _BATCH // source.batch for layer in unit.layers}
    trained = sum(sizes.get(name, 0) for name in unit.tensors if name not in source.fixed)
    stored = sum(size for name, size in outputs.items() if name in kept)
    return _Held(bytes=_COPIES * trained + stored, largest=2 * max(outputs.values()))
