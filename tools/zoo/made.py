"""A model of a list as a PyTorch module with random weights."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from tools.zoo.entries import Entry


def made(entry: Entry) -> nn.Module:
    """The module, which takes one tensor and returns its logits.

    A package makes it from a name (`create_model` of timm, `models.get_model` of torchvision), or has a class by that
    name which takes a configuration (transformers).
    """
    library: Any = importlib.import_module(entry.package)
    name = entry.name.removeprefix(f"{entry.package}.")
    model: nn.Module
    if hasattr(library, "create_model"):
        model = library.create_model(name, pretrained=False, num_classes=entry.classes, **entry.arguments)
    elif hasattr(library, "models") and hasattr(library.models, "get_model"):
        # Only what it segments with has a backbone of its own, whose weights would be downloaded.
        none = dict.fromkeys(("weights", "weights_backbone") if entry.output else ("weights",))
        model = library.models.get_model(name, **none, num_classes=entry.classes, **entry.arguments)
    else:
        kind = getattr(library, name)
        model = kind(kind.config_class(**{"num_labels": entry.classes, **entry.arguments}))
    return _Logits(model, entry.argument, entry.output) if entry.argument or entry.output else model


class _Logits(nn.Module):
    """A model whose input or logits have a name."""

    def __init__(self, model: nn.Module, argument: str, output: str) -> None:
        super().__init__()
        self.model = model
        self._argument, self._output = argument, output

    def forward(self, inputs: Tensor) -> Any:
        result = self.model(**{self._argument: inputs}) if self._argument else self.model(inputs)
        return result[self._output] if self._output else result
