"""Errors in the words of the fleet file: its name and its keys, instead of options of other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from device_profiles.errors import ProflError
from device_profiles.settings import Words

KEYS = {
    "model": "model.name",
    "width": "model.width",
    "classes": "model.classes",
    "input_shape": "model.input_shape",
    "input_dtype": "model.input_dtype",
    "batch": "model.batch",
    "initial_weights": "model.initial_weights",
    "mean": "model.mean",
    "std": "model.std",
    "train_units": "model.train_units",
    "lora": "model.lora",
    "lora_alpha": "model.lora_alpha",
    "lora_targets": "model.lora_targets",
    "head": "model.head",
    "loss": "model.loss",
    "label_smoothing": "model.label_smoothing",
    "partition": "model.partition",
    "data": "data.sources",
    "augment": "training.augment",
    "cache_prefix": "training.cache_prefix",
    "clip_norm": "training.clip_norm",
    "epochs": "training.epochs",
    "momentum": "training.momentum",
    "proximal": "training.proximal",
    "proximal_mu": "training.proximal",
    "steps": "training.steps",
    "weight_decay": "training.weight_decay",
}
"""Keys of the fleet file for settings of other commands. Settings that it has no key for keep their option's name."""


class FleetWords(Words):
    """How a fleet file, whose model is called `model`, calls settings."""

    def __init__(self, model: str) -> None:
        self._model = model

    def name(self, key: str) -> str:
        """A setting: `model.width`."""
        return KEYS.get(key) or super().name(key)

    def value(self, value: object) -> str:
        """A value by itself: a shape as `[3, 32, 32]`."""
        return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)

    def assigned(self, key: str, value: object) -> str:
        """A setting and its value, as the file says it: `model.partition = "0-2,3"`."""
        return f"{self.name(key)} = {self._written(value)}" if key in KEYS else super().assigned(key, value)

    def exported(self, key: str, value: object) -> str:
        """The advice to change a key: `set model.width to 8`."""
        return f"set {self.name(key)} to {self._written(value)}" if key in KEYS else super().exported(key, value)

    def the_model(self) -> str:
        """The model's name and the key it is under, then the model."""
        return f"{self.subject('model', self._model)}: the model"

    def _written(self, value: object) -> str:
        return json.dumps(value) if isinstance(value, str) else self.value(value)


@contextmanager
def in_words_of(origin: str, model: str) -> Iterator[None]:
    """Errors of the body name the fleet file `origin` and its keys where they are about them, or about its `model`."""
    try:
        yield
    except ProflError as error:
        if not error.names_settings:
            raise
        raise type(error)(error.said(FleetWords(model)), place=origin) from None
