"""Networks with logits for every token or pixel, and of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, LENGTH, CLASSES = 11, 7, 5


class Tagger(nn.Module):
    """A class for each token: [N, 7] int64 -> [N, 7, 5], or with `first` [N, 5, 7]."""

    def __init__(self, *, first: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.mix = nn.Linear(LENGTH, LENGTH)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, CLASSES)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """[N, 7] -> logits."""
        x = self.embedding(x)
        x = x + torch.tanh(self.mix(x.transpose(1, 2)).transpose(1, 2))
        y: Tensor = self.fc(self.norm(x))
        return y.transpose(1, 2) if self.first else y


class Segmenter(nn.Module):
    """A class for each pixel: [N, 3, 8, 8] -> [N, 5, 8, 8], resized from a quarter of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.mix = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 8, 8] -> logits."""
        x = self.mix(torch.relu(self.norm(self.stem(x))))
        return functional.interpolate(self.head(torch.relu(x)), scale_factor=2.0, mode="bilinear")


def tagger() -> nn.Module:
    """With its classes last."""
    torch.manual_seed(4)
    return Tagger()


def tagger_first() -> nn.Module:
    """With its classes first, as PyTorch's loss takes them."""
    torch.manual_seed(4)
    return Tagger(first=True)


def segmenter() -> nn.Module:
    """With its classes first, as of images."""
    torch.manual_seed(4)
    return Segmenter()


def sensor() -> nn.Module:
    """Three outputs of five features: [N, 5] -> [N, 3]."""
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def gauge() -> nn.Module:
    """One number of five features: [N, 5] -> [N, 1]."""
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
