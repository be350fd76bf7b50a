"""`python -m profiler.torch.plan SPEC`: units and blocks of a model without a bundle, for the PyTorch meter.

A process of its own, because finding the units needs torch and leaves much memory behind. Prints a `ModelPlan`.
"""

from __future__ import annotations

import sys

import msgspec
from torch import nn

from device_profiles.errors import ProflError, UsageError
from edge_runtime.export import models
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.ir.faults import TOKENS_NEED_INT64
from edge_runtime.export.plan.balanced import balanced_partition, single_partition
from edge_runtime.export.plan.block_model import BlockModel
from profiler.torch.meter import ModelChoice, ModelPlan

_IMAGES_ONLY = "--runtime torch measures models of images only"


def plan_model(choice: ModelChoice) -> ModelPlan:
    """Cut the model as `profl-edge export` would; raises UsageError where it cannot be cut."""
    usual = models.BUILT_IN.get(choice.model)
    if usual is not None and len(usual.input_shape) != len(choice.input_shape):
        raise UsageError(f"--model {choice.model}: {_IMAGES_ONLY}")
    module = _create(choice)
    source = BlockModel.of(module, name=choice.model, batch=2, input_shape=choice.input_shape, classes=choice.classes)
    count = len(source.cut.units)
    if choice.blocks is not None:
        partition = balanced_partition(source, choice.blocks)
    elif choice.model in models.BUILT_IN:
        partition = partition_of(list(models.BUILT_IN[choice.model].default_blocks), count)
    else:
        partition = single_partition(source)
    return ModelPlan(model=source.model, partition=partition)


def _create(choice: ModelChoice) -> nn.Module:
    from profiler.torch.step import create_module

    return create_module(choice)


def main() -> int:
    """Print the plan, or one line about what is wrong."""
    try:
        plan = plan_model(msgspec.json.decode(sys.argv[1], type=ModelChoice))
    except ProflError as error:
        print(" ".join(_said(error).split()), file=sys.stderr)
        return 2
    sys.stdout.buffer.write(msgspec.json.encode(plan))
    return 0


def _said(error: ProflError) -> str:
    """The error, in whose words tokens have no part, with the option first where it names none."""
    if error.remedy == TOKENS_NEED_INT64:
        error = type(error)(error.message, field=error.field, value=error.value, remedy=_IMAGES_ONLY)
    return str(error) if error.field is not None else f"--model: {error}"


if __name__ == "__main__":
    sys.exit(main())
