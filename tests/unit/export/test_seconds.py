"""Seconds of programs of a measured device, predicted from its other programs."""

from __future__ import annotations

from statistics import median

import pytest

pytest.importorskip("torch", reason="loads are counted from programs, which are built from a PyTorch module")

from device_profiles.manifest import Optimizer
from device_profiles.seconds import fit_speed
from device_profiles.shipped import shipped_profile
from edge_runtime.export import models
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.programs import build_programs
from edge_runtime.export.plan.runs import TrainingChoices

_SGD = TrainingChoices(optimizer=Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4))


def test_each_program_of_the_shipped_profile_is_predicted_from_the_others() -> None:
    module = models.create("resnet18")
    source = BlockModel.of(module, name="resnet18", batch=32, input_shape=(3, 32, 32), classes=10)
    blocks = models.BUILT_IN["resnet18"].default_blocks
    programs = build_programs(
        source, partition_of(list(blocks), len(source.cut.units)), blocks=(1, 2, 3, 4), choices=_SGD
    )
    loads = {program.name: program.loads for program, _, _ in programs}
    costs = shipped_profile("x86_64-2-cores-resnet18").costs
    measured = [(loads[cost.program], cost.step_seconds_median) for cost in costs if cost.step_seconds_median]
    assert len(measured) == 7
    errors = []
    for place, (own, seconds) in enumerate(measured):
        speed = fit_speed([*measured[:place], *measured[place + 1 :]])
        assert speed is not None
        errors.append(abs(speed.seconds(own) / seconds - 1))
    assert median(errors) <= 0.08
    assert max(errors) <= 0.2
