"""Which weights no program of a bundle trains, so that its file may keep them in bfloat16."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import torch
from torch import nn

from device_profiles.errors import UsageError
from device_profiles.settings import Setting
from device_profiles.work import Growing, first_trained_unit
from edge_runtime.export.plan.block_model import BlockModel


def narrowed(module: nn.Module, source: BlockModel, works: Iterable[Growing] | None) -> BlockModel:
    """The model whose frozen weights of two dimensions and more are bfloat16; those of `module` are rounded to it.

    `works` are the only training steps of the bundle; None for those of every block. Raises UsageError where all
    weights are trained by some step.
    """
    names = _frozen(module, source, works)
    if not names:
        raise UsageError(
            "every weight is trained by some program",
            field="frozen_dtype",
            value="bfloat16",
            remedy=("give ", Setting("train_units"), " or ", Setting("lora"), ", or leave it out"),
        )
    with torch.no_grad():
        for name in names:
            parameter = module.get_parameter(name)
            parameter.copy_(parameter.bfloat16())
    specs = tuple(msgspec.structs.replace(s, dtype="bfloat16") if s.name in names else s for s in source.tensors)
    return replace(source, narrow=names, tensors=specs)


def _frozen(module: nn.Module, source: BlockModel, works: Iterable[Growing] | None) -> frozenset[str]:
    units = source.cut.units
    first = 0 if works is None else min(first_trained_unit(work) for work in works)
    trained = {name for unit in (*units[first:], source.cut.head) for name in unit.tensors} - source.fixed
    shared = {spec.same_as for spec in source.tensors} | {spec.name for spec in source.tensors if spec.same_as}
    shared |= set(source.aliases) | set(source.aliases.values())
    used = {name for unit in (*units, source.cut.head) for name in unit.tensors}
    matrices = {name for name, parameter in module.named_parameters() if parameter.dim() > 1}
    return frozenset((used & matrices) - trained - shared)
