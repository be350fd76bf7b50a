"""Networks of timm for images of 224x224 with 10 classes, as factories that an export can name."""

from __future__ import annotations

import importlib

from torch import nn

CLASSES = 10
NAMES = {
    "mobilenetv2": "mobilenetv2_100",
    "mobilenetv3": "mobilenetv3_large_100",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "vit_tiny": "vit_tiny_patch16_224",
}
"""What timm calls them."""


def made(name: str) -> nn.Module:
    """One of `NAMES` with random weights."""
    module: nn.Module = importlib.import_module("timm").create_model(NAMES[name], pretrained=False, num_classes=CLASSES)
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
