"""Training steps that trade something for memory, beside the one that an export writes by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from device_profiles.model import Partition
from device_profiles.trades import Trade, executions_of, with_trade
from device_profiles.work import Growing
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.program_entry import PlannedProgram
from edge_runtime.export.plan.programs import training_step
from edge_runtime.export.plan.runs import TrainingChoices

Sources = Callable[[int], BlockModel]
"""The model as it is captured for a step that is divided into so many executions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traded:
    """A training step to write. `recompute_bytes` is what its arena may take, with `recompute` alone."""

    work: Growing
    trade: Trade
    recompute_bytes: int | None = None


def traded_choices(choices: TrainingChoices, trade: Trade, recompute_bytes: int | None = None) -> TrainingChoices:
    """What an export asks of a training step with this trade."""
    optimizer = choices.optimizer
    if trade == "bfloat16":
        optimizer = msgspec.structs.replace(optimizer, momentum_dtype="bfloat16")
    return replace(
        choices,
        optimizer=optimizer,
        micro_batches=choices.micro_batches * executions_of(trade),
        recompute_bytes=recompute_bytes if trade == "recompute" else choices.recompute_bytes,
    )


def traded_step(sources: Sources, partition: Partition, asked: Traded, choices: TrainingChoices) -> PlannedProgram:
    """The program, by its own name; `choices` are those of the default one."""
    source = sources(executions_of(asked.trade))
    own = traded_choices(choices, asked.trade, asked.recompute_bytes)
    program, graph, plan = training_step(source, partition, asked.work, own)
    return msgspec.structs.replace(program, name=with_trade(program.name, asked.trade)), graph, plan
