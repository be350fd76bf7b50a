"""What the networks of `odd_models` are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Around(nn.Module):
    """A convolution, `middle`, a convolution from its channels, pooling and a linear layer."""

    def __init__(self, middle: nn.Module, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.middle = middle
        self.last = nn.Conv2d(channels, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 4]."""
        return self.fc(self.last(self.middle(self.stem(x))).relu().mean((2, 3)))


class Function(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of it."""
        return self.function(x)


class Swap(nn.Module):
    """Channels last, or first again."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, A, H, B] -> [N, B, H, A]."""
        return x.transpose(1, 3)


class Skips(nn.Module):
    """Sums whose summands are used again: `joined(a, b, convolution, convolution)`, a and b made from one tensor."""

    def __init__(self, joined: Callable[..., Tensor]) -> None:
        super().__init__()
        self.joined = joined
        self.a, self.b = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.f, self.g = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6, H, W] -> [N, 6, H, W]."""
        return self.joined(self.a(x), self.b(x), self.f, self.g)


class PatchEmbedding(nn.Module):
    """Patches of 16x16 as tokens with positions, a layer of attention, and a linear layer on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, stride=16)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 6, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 32, 48] -> [N, 4]."""
        return self.fc(self.layer(self.patches(x).flatten(2).transpose(1, 2) + self.positions).mean(1))


class AroundSequence(nn.Module):
    """`middle` between convolutions of a sequence."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv1d(5, 6, 3, padding=1)
        self.middle = middle
        self.last = nn.Conv1d(6, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, L] -> [N, 4]."""
        return self.fc(self.last(self.middle(self.stem(x))).relu().mean(2))


class Recurrent(nn.Module):
    """A recurrent layer over [N, steps, 5], and a linear layer on its last step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 12)
        self.layer = layer
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        return self.fc(self.layer(self.stem(x))[0][:, -1])


class Excitation(nn.Module):
    """Squeeze-and-excitation with its mean over dimensions and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6, H, W] weighted by channel."""
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]


class Mixed(nn.Module):
    """Channels mixed by a parameter through `torch.einsum`."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)) / 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6, H, W] -> [N, 6, H, W]."""
        return torch.einsum("nchw,oc->nohw", x, self.mix)
