"""Networks that the models of `zoo` are, or are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """A convolution, `middle` of its output and the module, and a linear layer on the mean: [N, 3, H, W] -> [N, 10]."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor], make: Callable[[Any], None] = lambda net: None) -> None:
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 10)
        self.middle = middle
        make(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.fc(self.middle(self, self.a(x)).mean((2, 3)))


class SequenceFirst(nn.Module):
    """A transformer layer whose first dimension is the sequence: [N, T, 6] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.fc = nn.Linear(6, 12), nn.Linear(12, 10)
        self.layer = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean over the sequence."""
        return self.fc(self.layer(self.e(x).transpose(0, 1)).mean(0))


class Rotary(nn.Module):
    """Attention with a factor on queries and keys, whose output is where the head begins: [N, 5, 6] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.fc = nn.Linear(6, 12), nn.Linear(12, 10)
        self.register_buffer("c", torch.rand(5, 4, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean token."""
        x = self.e(x).view(x.shape[0], 5, 3, 4).transpose(1, 2)
        q = x * self.c
        x = functional.scaled_dot_product_attention(q, q, x).transpose(1, 2)
        return self.fc(x.reshape(x.shape[0], 5, 12).mean(1))


class PerToken(nn.Module):
    """Tokens of all examples in one dimension, which are taken apart again before the last layer's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.h, self.fc = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 10]."""
        n, t, _ = x.shape
        return self.fc(self.h(self.e(x).relu().reshape(n * t, 12)).relu().view(n, t, 12).mean(1))


class Ending(nn.Module):
    """A network that ends with `last` of its logits."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.fc, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 10), last

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 10]."""
        return self.last(self.fc(self.a(x).relu().mean((2, 3))))


def fail() -> nn.Module:
    raise ValueError("no weights file\nsecond line")


def leave() -> nn.Module:
    raise SystemExit(3)


def with_a_nan() -> nn.Module:
    net = Net(lambda net, x: x.relu())
    with torch.no_grad():
        net.a.weight[0, 0, 0, 0] = torch.nan
    return net


def turned() -> nn.Module:
    net = Net(lambda net, x: x.relu())
    net.fc.weight = nn.Parameter(torch.randn(6, 10).t())
    return net


def of_lazy_layers() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


class Twice(nn.Module):
    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.a, self.z, self.fc = convolution, nn.Sequential(convolution, nn.ReLU()), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.z(x).mean((2, 3)))


class Modes(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.fc, self.change = nn.Conv2d(3, 6, 3), nn.Linear(6, 10), change

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(self.a(x).relu().mean((2, 3)))
        return x if self.training else self.change(x)
