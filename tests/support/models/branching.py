"""Networks whose channels are joined, divided and shuffled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support.models.layers import Classifier


class DenseStage(nn.Module):
    """Every layer sees what all before it put out."""

    def __init__(self, channels: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + i * growth),
                nn.ReLU(),
                nn.Conv2d(channels + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + count * growth, H, W]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> nn.Module:
    """Like DenseNet: [N, 3, 32, 32] -> [N, 10]."""
    features: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1, bias=False)]
    channels = 8
    for stage in range(3):
        features.append(DenseStage(channels, 8, 2))
        channels += 16
        if stage < 2:
            features.append(
                nn.Sequential(
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                    nn.AvgPool2d(2),
                )
            )
            channels //= 2
    features += [nn.BatchNorm2d(channels), nn.ReLU()]
    return Classifier(features, nn.Linear(channels, 10))


class Inception(nn.Module):
    """Parallel branches, joined along the channels, each channel scaled by a weight of its own."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        each = outputs // 4
        self.one = nn.Conv2d(inputs, each, 1)
        self.three = nn.Sequential(nn.Conv2d(inputs, each, 1), nn.SiLU(), nn.Conv2d(each, each, 3, padding="same"))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, each, 1))
        self.mean = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(inputs, each, 1))
        self.norm = nn.GroupNorm(groups, outputs)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, outputs).reshape(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        joined = torch.cat([self.one(x), self.three(x), self.pool(x), self.mean(x)], 1)
        return torch.relu(self.norm(joined)) * self.scale


class ShuffleStage(nn.Module):
    """Half of the channels convolved, then all of them shuffled; padded by hand and halved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels // 2, channels // 2, 3, 1, 0)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H / 2, W / 2]."""
        kept, changed = x.chunk(2, dim=1)
        changed = self.convolution(nn.functional.pad(changed, (1, 1, 1, 1), value=0.1))
        joined = torch.cat([kept, changed - 0.5 * kept], dim=1)
        n, c, h, w = joined.shape
        shuffled = joined.reshape(n, 2, c // 2, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
        return nn.functional.adaptive_avg_pool2d(self.norm(shuffled), (h // 2, w // 2))


def inception() -> nn.Module:
    """Branches, shuffled channels and GroupNorm, no BatchNorm: [N, 3, 32, 32] -> [N, 10]."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Hardswish()),
        Inception(8, 16, 4),
        ShuffleStage(16),
        Inception(16, 32, 8),
        nn.Sequential(nn.Conv2d(32, 10, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
