"""What a fleet file says is done to its model before it is captured, and which of its units are trained."""

from __future__ import annotations

from pathlib import Path

from device_profiles.work import Grow
from edge_runtime.export.models.preparation import Preparation
from server.fleet.model import ModelSettings


def preparation_of(model: ModelSettings) -> Preparation:
    """The same as the options of `profl-edge export`."""
    return Preparation(
        initial_weights=None if model.initial_weights is None else Path(model.initial_weights),
        mean=model.mean,
        std=model.std,
        lora=model.lora,
        lora_alpha=model.lora_alpha,
        lora_targets=model.lora_targets,
    )


def trained_work(model: ModelSettings) -> Grow | None:
    """The one training step of a fine-tuning; None where the file names no units."""
    run = model.trained_run
    return None if run is None else Grow(first_unit=run[0], last_unit=run[1])
