"""The optimizer of the clients, as a bundle's programs and a simulation have it."""

from __future__ import annotations

from msgspec.structs import replace

from device_profiles.manifest import Optimizer
from server.fleet.fleet import TrainingSettings


def local_optimizer(training: TrainingSettings) -> Optimizer:
    """What the fleet file says of it; settings of the other optimizers are left at what a manifest has for them."""
    common = Optimizer(name=training.optimizer, weight_decay=training.weight_decay, clip_norm=training.clip_norm)
    if training.optimizer == "adamw":
        return replace(common, beta1=training.beta1, beta2=training.beta2, eps=training.eps)
    return replace(
        common,
        momentum=training.momentum,
        momentum_dtype=training.momentum_dtype,
        nesterov=training.nesterov,
        proximal=training.proximal > 0,
    )
