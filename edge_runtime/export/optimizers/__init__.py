"""The optimizers, one file each. Another one: see "another optimizer" in docs/contributing.md."""

from __future__ import annotations

from device_profiles.manifest import Optimizer
from device_profiles.optimizers import OptimizerName
from edge_runtime.export.optimizers.adamw import AdamW
from edge_runtime.export.optimizers.optimizer import ProgramOptimizer
from edge_runtime.export.optimizers.sgd import Sgd

_CLASSES: dict[OptimizerName, type[ProgramOptimizer]] = {"sgd": Sgd, "adamw": AdamW}


def optimizer_of(settings: Optimizer, micro_batches: int = 1) -> ProgramOptimizer:
    """The optimizer of a program whose step is `micro_batches` executions."""
    return _CLASSES[settings.name](settings, micro_batches)
