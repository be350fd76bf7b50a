"""Networks whose kernels the built-in models do not have: depthwise and grouped convolutions, attention, GELU."""

from __future__ import annotations

import torch
from torch import nn


class _Inverted(nn.Module):
    """MobileNetV2's block, with the squeeze and excitation of later ones."""

    def __init__(self, channels: int, outputs: int, stride: int, taps: int) -> None:
        super().__init__()
        wide = 6 * channels
        self.widen = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())
        depthwise = nn.Conv2d(wide, wide, taps, stride, taps // 2, groups=wide, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.SiLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, channels // 4, 1), nn.SiLU(), nn.Conv2d(channels // 4, wide, 1)
        )
        self.narrow = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = channels == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images of `channels` to images of `outputs`."""
        wide = self.depthwise(self.widen(x))
        out: torch.Tensor = self.narrow(wide * torch.sigmoid(self.gate(wide)))
        return out + x if self.residual else out


def mobile(num_classes: int = 10) -> nn.Module:
    """A small network of inverted residuals, for 3x32x32."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.SiLU()]
    channels = 24
    for outputs, stride, taps in ((24, 1, 3), (40, 2, 5), (40, 1, 5), (80, 2, 3), (80, 1, 3), (112, 2, 5), (112, 1, 3)):
        layers.append(_Inverted(channels, outputs, stride, taps))
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def grouped(num_classes: int = 10) -> nn.Module:
    """Convolutions in groups of eight and of sixteen channels, for 3x32x32."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1)]
    channels = 32
    for outputs, stride, width in ((64, 2, 8), (64, 1, 16), (128, 2, 8), (128, 1, 16)):
        layers += [nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.Conv2d(outputs, outputs, 3, stride, 1, groups=outputs // width, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        fed: torch.Tensor = self.feed(self.norm2(x))
        return x + fed


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.zeros(1, 64, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to tokens."""
        patches: torch.Tensor = self.patches(x)
        return patches.flatten(2).transpose(1, 2) + self.position


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to one."""
        return x.mean(dim=1)


def vision_transformer(num_classes: int = 10) -> nn.Module:
    """Three layers of ViT-tiny's width, for 3x32x32."""
    width = 192
    layers = [_Attention(width, 3) for _ in range(3)]
    return nn.Sequential(_Patches(width), *layers, nn.LayerNorm(width), _Mean(), nn.Linear(width, num_classes))
