"""Networks that are built for what is around their layers: their depth, their head, their names."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DeepTransformer(nn.Module):
    """Patches as tokens, many narrow layers, their mean."""

    def __init__(self, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True) for _ in range(depth)
        )
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 32, 32] -> [N, 10]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


def deep_transformer() -> nn.Module:
    """Large and small tensors of a long frozen prefix beside each other: [N, 3, 32, 32] -> [N, 10]."""
    return DeepTransformer()


class NormHead(nn.Module):
    """A head with a normalisation of its own: pooling, a 1x1 convolution with BatchNorm and ReLU, a linear layer."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.conv = nn.Conv2d(inputs, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.fc = nn.Linear(4 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes]."""
        return self.fc(torch.relu(self.norm(self.conv(self.pool(x)))).flatten(1))


class WithNormHead(nn.Module):
    """Two stages and such a head, whose frozen normalisation a distillation passes gradients through."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.stage3 = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = NormHead(16, 12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 16, 16] -> [N, 10]."""
        return self.head(self.stage3(self.stage2(self.stage1(x))))


def norm_head() -> nn.Module:
    """[N, 3, 16, 16] -> [N, 10]; `--head head`."""
    return WithNormHead()


class Wrapped(nn.Module):
    """A network in an attribute, as training frameworks keep it: every name begins with `inner.`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """What the network answers."""
        return self.inner(x)


def wrapped() -> nn.Module:
    """[N, 3, 8, 8] -> [N, 10]."""
    return Wrapped(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    )
