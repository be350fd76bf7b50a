"""The training programs of a model's runs of units: planned as an export plans them, and not written."""

from __future__ import annotations

from pathlib import Path

import torch

from device_profiles.costs import Costs, RunCost
from device_profiles.errors import FormatError
from device_profiles.files import read_json, write_json
from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.trades import Trade, executions_of, with_trade
from device_profiles.work import Distill, Growing, block_of, first_trained_unit, label, suffixes
from edge_runtime.export.models import default_dtype
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.costs import DEFAULT_ONLY, planned_from, recomputed_cost, run_costs
from edge_runtime.export.plan.programs import build_programs, is_trained_apart, run_of
from edge_runtime.export.plan.runs import TrainingChoices
from edge_runtime.export.plan.traded import Traded, traded_choices
from edge_runtime.export.targets.losses import check_loss
from edge_runtime.export.targets.native import choose_partition
from server.fleet.fleet import TrainingSettings
from server.fleet.local_optimizer import local_optimizer
from server.fleet.model import ModelSettings
from server.fleet.preparation import preparation_of
from server.planner.choices import Offer
from server.planner.menus import Course, step_alone

_Ranges = tuple[tuple[int, int], ...]


class RunPrograms:
    """Programs of one model, of `width` channels instead of the model's own if that is given.

    Beside the program that an export writes by default there are the `trades` asked for, and recomputation where
    somebody asks for `lighter`. Each is planned once; `known` are rows of a table that need not be planned any more.
    """

    def __init__(
        self,
        model: ModelSettings,
        training: TrainingSettings,
        *,
        width: int | None = None,
        trades: tuple[Trade, ...] = ("default",),
    ) -> None:
        torch.manual_seed(model.seed)
        self._model = model
        self._module = create_model(
            model.name,
            width=model.width if width is None else width,
            classes=model.classes,
            input_shape=model.input_shape,
            preparation=preparation_of(model),
        )
        self._source = self._captured(model.batch)
        self._captures = {1: self._source}
        self._choices = TrainingChoices(optimizer=local_optimizer(training), loss=model.minimised)
        # Recomputation is planned where somebody asks for it: it takes several plans a run.
        self._trades = tuple(trade for trade in trades if trade != "recompute" and self._is_possible(trade))
        self._recomputes = "recompute" in trades
        self._known: dict[tuple[int, int, _Ranges, Trade], RunCost | None] = {}

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the model's units."""
        return tuple(unit.name for unit in self._source.cut.units)

    def partition(self, text: str | None = None, *, blocks: int | None = None) -> Partition:
        """A partition of the model from unit ranges, `0-2,3-8`, or into so many blocks; raises UsageError naming the
        option."""
        return choose_partition(self._source, self._source.name, blocks=blocks, partition=text)

    def program(self, work: Distill, partition: Partition) -> Program:
        """The program that distils a block of `partition`."""
        blocks = (block_of(work, partition),)
        programs = build_programs(self._source, partition, blocks=blocks, choices=self._choices)
        return next(program for program, _, _ in programs if program.work == work)

    def trains(self, work: Growing, partition: Partition) -> bool:
        """Whether a program can train `work`: it shares no tensor with what is frozen before it."""
        return is_trained_apart(self._source, partition, work)

    def cost(self, work: Growing, partition: Partition, trade: Trade = "default") -> RunCost | None:
        """What the program costs that trains `work`, whose units end with a block of `partition`; None where a trade
        saves nothing."""
        first, last = first_trained_unit(work), work.last_unit
        key = (first, last, _behind(partition, last), trade)
        if key not in self._known:
            self._known[key] = self._planned(work, partition, trade)
        return self._known[key]

    def courses(self, partition: Partition) -> dict[int, Course]:
        """By the last unit of a block: what trains each of its suffixes, and the output module alone; nothing where no
        program can."""
        return {block.last_unit: self._course(partition, block.index) for block in partition.blocks}

    def ends(self) -> dict[int, Course]:
        """The same of every unit as the end of a step, what lies behind it as one block: for the choice of steps."""
        units = len(self.units)
        return {end: self._course(step_alone(end, units), 1) for end in range(units)}

    def lighter(self, work: Growing, partition: Partition) -> Offer | None:
        """The step in the least memory that recomputation reaches."""
        cost = self.cost(work, partition, "recompute") if self._recomputes else None
        return None if cost is None else _offer(work, partition, "recompute", cost)

    def traded(self, work: Growing, partition: Partition, trade: Trade) -> Traded:
        """What an export is asked for, so that its program is the one that was planned."""
        cost = self.cost(work, partition, trade)
        return Traded(work=work, trade=trade, recompute_bytes=None if cost is None else cost.recompute_bytes)

    def read_table(self, path: Path) -> bool:
        """Take over the rows of a table, `costs.json` of a run or a bundle; whether there is one of the same model and
        training. Raises FormatError for a file that is no table."""
        if not path.is_file():
            return False
        table = read_json(path, Costs)
        if table.planned_from != planned_from(self._source, self._choices):
            return False
        units = len(self.units)
        dtype = self._choices.optimizer.momentum_dtype
        for row in table.runs:
            trade = row.trade(dtype)
            if not -1 < row.last_unit < units:
                raise FormatError(f"{path}: runs: there is no unit {row.last_unit}")
            if trade is not None:
                behind = _behind(table.partition or step_alone(row.last_unit, units), row.last_unit)
                self._known[(row.first_unit, row.last_unit, behind, trade)] = row
        return True

    def write_table(self, path: Path) -> None:
        """Keep what was planned for the choice of steps, as a `costs.json` of its own."""
        units = len(self.units)
        rows = tuple(
            row
            for (_, last, behind, _), row in sorted(self._known.items(), key=lambda item: item[0])
            if row is not None and behind == _behind(step_alone(last, units), last)
        )
        write_json(
            path, Costs(model=self._source.name, runs=rows, planned_from=planned_from(self._source, self._choices))
        )

    def _course(self, partition: Partition, block: int) -> Course:
        return [self._offers(work, partition) for work in suffixes(partition, block)]

    def _offers(self, work: Growing, partition: Partition) -> list[Offer]:
        if not self.trains(work, partition):
            return []
        costs = [(trade, self.cost(work, partition, trade)) for trade in self._trades]
        return [_offer(work, partition, trade, cost) for trade, cost in costs if cost is not None]

    def _planned(self, work: Growing, partition: Partition, trade: Trade) -> RunCost | None:
        source = self._in_executions(executions_of(trade))
        run, choices = run_of(source, partition, work), traded_choices(self._choices, trade)
        if trade == "recompute":
            return recomputed_cost(source, run, choices)
        return next(run_costs(source, run, choices, DEFAULT_ONLY))

    def _is_possible(self, trade: Trade) -> bool:
        batch, optimizer = self._source.batch, self._choices.optimizer
        if trade == "bfloat16":
            stores = "momentum_dtype" in OPTIMIZERS[optimizer.name].settings
            return stores and optimizer.momentum > 0 and optimizer.momentum_dtype != "bfloat16"
        executions = executions_of(trade)
        return executions == 1 or (batch % executions == 0 and batch // executions > 1)

    def _in_executions(self, count: int) -> BlockModel:
        if count not in self._captures:
            self._captures[count] = self._captured(self._source.batch // count)
        return self._captures[count]

    def _captured(self, batch: int) -> BlockModel:
        model = self._model
        source = BlockModel.of(
            self._module,
            name=model.name,
            batch=batch,
            input_shape=model.input_shape,
            classes=model.classes,
            head=model.head,
            input_dtype=model.input_dtype or default_dtype(model.name),
        )
        check_loss(model.minimised, source)
        return source


def _behind(partition: Partition, last: int) -> _Ranges:
    """The blocks behind unit `last`, in whose places stand-ins are."""
    return tuple((b.first_unit, b.last_unit) for b in partition.blocks if b.first_unit > last)


def _offer(work: Growing, partition: Partition, trade: Trade, cost: RunCost) -> Offer:
    return Offer(work=work, program=with_trade(label(work, partition), trade), trade=trade, plan=cost)
