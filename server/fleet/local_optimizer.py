"""The optimizer of the clients, as a bundle's programs and a simulation have it."""

from __future__ import annotations

from msgspec.structs import replace

from device_profiles.manifest import Optimizer
from device_profiles.optimizers import OPTIMIZERS
from server.fleet.fleet import TrainingSettings


def local_optimizer(training: TrainingSettings) -> Optimizer:
    """What the fleet file says of it; settings of the other optimizers are left at what a manifest has for them."""
    common = Optimizer(name=training.optimizer, weight_decay=training.weight_decay, clip_norm=training.clip_norm)
    own = {name: getattr(training, name) for name in OPTIMIZERS[training.optimizer].settings}
    if "proximal" in own:
        own["proximal"] = training.proximal > 0  # a program has the term or not; mu is given to each training
    return replace(common, **own)
