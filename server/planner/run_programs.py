"""The training programs of a model's runs of units: planned as an export plans them, and not written."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.work import Distill, Growing, block_of, suffixes
from edge_runtime.export.models import default_dtype
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.programs import build_programs, is_trained_apart, training_step
from edge_runtime.export.plan.runs import TrainingChoices
from edge_runtime.export.targets.native import choose_partition
from server.fleet.fleet import ModelSettings, TrainingSettings
from server.fleet.local_optimizer import local_optimizer


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPrograms:
    """Programs of the suffixes of a partition's blocks."""

    partition: Partition
    programs: tuple[Program, ...]


NEVER = 1 << 62
"""Bytes of what nobody can be asked for."""


class RunPrograms:
    """Programs of one model, of `width` channels instead of the model's own if that is given."""

    def __init__(self, model: ModelSettings, training: TrainingSettings, *, width: int | None = None) -> None:
        torch.manual_seed(model.seed)
        module = create_model(
            model.name,
            width=model.width if width is None else width,
            classes=model.classes,
            input_shape=model.input_shape,
        )
        self._source = BlockModel.of(
            module,
            name=model.name,
            batch=model.batch,
            input_shape=model.input_shape,
            classes=model.classes,
            head=model.head,
            input_dtype=model.input_dtype or default_dtype(model.name),
        )
        self._choices = TrainingChoices(optimizer=local_optimizer(training))

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the model's units."""
        return tuple(unit.name for unit in self._source.cut.units)

    def partition(self, text: str) -> Partition:
        """A partition of the model from unit ranges, `0-2,3-8`; raises UsageError naming the option."""
        return choose_partition(self._source, self._source.name, blocks=None, partition=text)

    def program(self, work: Growing | Distill, partition: Partition) -> Program:
        """The program that trains `work`, whose units end with a block of `partition`."""
        if isinstance(work, Distill):
            blocks = (block_of(work, partition),)
            programs = build_programs(self._source, partition, blocks=blocks, choices=self._choices)
            return next(program for program, _, _ in programs if program.work == work)
        program, _, _ = training_step(self._source, partition, work, self._choices)
        return program

    def trains(self, work: Growing, partition: Partition) -> bool:
        """Whether a program can train `work`: it shares no tensor with what is frozen before it."""
        return is_trained_apart(self._source, partition, work)

    def suffixes(self, partition: Partition) -> dict[int, list[Program | None]]:
        """By the last unit of a block: the programs of its suffixes, the longest first, then that of the output module
        alone; None for what no program can train."""
        return {block.last_unit: self._suffixes(partition, block.index) for block in partition.blocks}

    def planned(self, partition: Partition) -> PlannedPrograms:
        """All those of a partition that can be trained."""
        rows = self.suffixes(partition).values()
        found = tuple(program for row in rows for program in row if program is not None)
        return PlannedPrograms(partition=partition, programs=found)

    def ends(self) -> dict[int, list[Program | None]]:
        """The same of every unit as the end of a step, what lies behind it as one block: for the choice of steps."""
        units = len(self.units)
        return {end: self._suffixes(step_alone(end, units), 1) for end in range(units)}

    def _suffixes(self, partition: Partition, block: int) -> list[Program | None]:
        works = suffixes(partition, block)
        return [self.program(work, partition) if self.trains(work, partition) else None for work in works]


def step_alone(end: int, units: int) -> Partition:
    """The partition in which the choice of steps looks at a step: its units, and all behind them as one block."""
    return Partition.ending_with([end, units - 1] if end < units - 1 else [end])
