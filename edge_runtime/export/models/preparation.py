"""What is done to a model before it is captured: pretrained weights, normalised inputs, adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from device_profiles.errors import UsageError
from device_profiles.model import Normalisation
from device_profiles.settings import Setting

if TYPE_CHECKING:
    from torch import nn


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing, by default.

    Attributes:
        initial_weights: a file that the weights start from (`pretrained.py`).
        mean, std: of each channel or feature of the input (`normalised.py`); both or none.
        lora: rank of the adapters (`lora.py`), 0 for none.
        lora_alpha: what they add is scaled by alpha / rank; None for 1.
        lora_targets: patterns of names of the layers that have one.
    """

    initial_weights: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    lora: int = 0
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Preparation:
        """What parameters of a command say, among others; None is as good as left out."""
        return cls(**{name: parameters[name] for name in PARTS if parameters[name] is not None})

    def apply(
        self, module: nn.Module, *, classes: int, input_shape: tuple[int, ...], note: Callable[[str], None]
    ) -> None:
        """Change `module` so; `note` is told what was found in the file. Raises UsageError and FormatError."""
        if self.lora_targets and not self.lora:
            raise UsageError(
                (Setting("lora_targets"), " requires ", Setting("lora")), remedy="give the rank, such as 8"
            )
        if self.lora_alpha is not None and not self.lora:
            raise UsageError((Setting("lora_alpha"), " requires ", Setting("lora")), remedy="give the rank, such as 8")
        if bool(self.mean) != bool(self.std):
            raise UsageError((Setting("mean"), " and ", Setting("std"), " belong together"), remedy="give both")
        if self.initial_weights is not None:
            from edge_runtime.export.models.pretrained import load_pretrained

            loaded = load_pretrained(module, self.initial_weights, classes=classes)
            for line in loaded.lines(self.initial_weights):
                note(line)
        if self.mean:
            from edge_runtime.export.models.normalised import normalise_inputs

            normalise_inputs(module, Normalisation(mean=self.mean, std=self.std), input_shape)
        if self.lora:
            from edge_runtime.export.models.lora import add_lora

            add_lora(module, rank=self.lora, alpha=self.lora_alpha, targets=self.lora_targets, classes=classes)


PARTS = Preparation.__struct_fields__
"""Names of what can be done, as the command's parameters have them."""
UNCHANGED = Preparation()
