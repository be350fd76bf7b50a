"""Networks with 10 classes that an export can name: of timm for images of 224x224, and a recurrent one."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch import nn

CLASSES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A network: what timm calls it, empty for one of our own; its examples, the blocks that it is cut into, and the
    steps that are timed together: enough to be long beside the start of a process."""

    timm: str = ""
    shape: tuple[int, ...] = (3, 224, 224)
    batch: int = 8
    blocks: int = 4
    steps: int = 3


NETWORKS = {
    "mobilenetv2": Entry(timm="mobilenetv2_100"),
    "mobilenetv3": Entry(timm="mobilenetv3_large_100"),
    "resnet18": Entry(timm="resnet18"),
    "resnet50": Entry(timm="resnet50"),
    "vit_tiny": Entry(timm="vit_tiny_patch16_224"),
    "gru": Entry(shape=(128, 16), batch=32, blocks=1, steps=80),
}


class Recurrent(nn.Module):
    """A GRU of 64 units over a sequence, and a linear layer on its last state: a classifier of sensors' signals."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, 64, batch_first=True)
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of sequences, [batch, steps, features]."""
        states, _ = self.gru(x)
        logits: torch.Tensor = self.classifier(states[:, -1])
        return logits


def made(name: str) -> nn.Module:
    """One of `NETWORKS` with random weights."""
    entry = NETWORKS[name]
    if not entry.timm:
        return Recurrent(entry.shape[-1])
    module: nn.Module = importlib.import_module("timm").create_model(entry.timm, pretrained=False, num_classes=CLASSES)
    return module


def mobilenetv2() -> nn.Module:
    """MobileNetV2."""
    return made("mobilenetv2")


def mobilenetv3() -> nn.Module:
    """MobileNetV3, large."""
    return made("mobilenetv3")


def resnet18() -> nn.Module:
    """ResNet18 with its own stem."""
    return made("resnet18")


def resnet50() -> nn.Module:
    """ResNet50 with its own stem."""
    return made("resnet50")


def vit_tiny() -> nn.Module:
    """ViT-tiny with patches of 16x16."""
    return made("vit_tiny")


def gru() -> nn.Module:
    """A GRU over 128 steps of 16 features."""
    return made("gru")
