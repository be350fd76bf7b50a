"""`profl-edge export --costs`: what every run of a bundle's units would cost."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from device_profiles.costs import Costs
from device_profiles.model import Partition
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.costs import Variants, planned_from, step_costs
from edge_runtime.export.plan.runs import TrainingChoices

_DIVISORS = (2, 4)
"""Executions that a step is divided into, beside the one or those asked for."""
_LEAST_EXAMPLES = 2
"""Of one execution: the statistics of a BatchNorm need as many."""


def costs_of(module: nn.Module, source: BlockModel, partition: Partition, choices: TrainingChoices) -> Costs:
    """All runs that end with a block of `partition`, in the default variant and in those that take less.

    `module` is captured again for every smaller micro-batch.
    """
    sizes = [source.batch // divisor for divisor in _DIVISORS if source.batch % divisor == 0]
    smaller = [capture_again(module, source, size) for size in sizes if size >= _LEAST_EXAMPLES]
    asked = replace(choices, recompute_bytes=None)
    runs = step_costs([source, *smaller], partition, asked, Variants())
    return Costs(model=source.name, runs=tuple(runs), partition=partition, planned_from=planned_from(source, asked))


def capture_again(module: nn.Module, source: BlockModel, batch: int) -> BlockModel:
    """The model of `source` for executions of `batch` examples."""
    again = BlockModel.of(
        module,
        name=source.name,
        batch=batch,
        input_shape=source.input_shape,
        classes=source.classes,
        head=source.head,
        input_dtype=source.input_dtype,
    )
    return replace(again, narrow=source.narrow, tensors=source.tensors)
