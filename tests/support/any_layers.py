"""Layers as packages of models have them: windows with tables of relative positions, weights that are computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class StandardisedConv(nn.Conv2d):
    """A convolution whose weight is standardised channel by channel: by `batch_norm`, or by its own mean and variance;
    with a gain for each channel or without."""

    def __init__(self, *arguments: int, way: str = "batch_norm", gain: bool = False, **settings: int) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]  # a layer's own settings
        self.way = way
        self.gain = nn.Parameter(1.0 + 0.1 * torch.randn(self.out_channels, 1, 1, 1)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, F, H, W]."""
        weight = self.weight
        if self.way == "batch_norm":
            gain = None if self.gain is None else (self.gain * 0.5).view(-1)
            weight = functional.batch_norm(
                weight.reshape(1, self.out_channels, -1), None, None, gain, training=True, momentum=0.0, eps=1e-6
            ).reshape_as(weight)
        else:
            variance, mean = torch.var_mean(weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
            weight = (weight - mean) / torch.sqrt(variance + 1e-6)
            weight = weight if self.gain is None else weight * self.gain
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ScaledLinear(nn.Linear):
    """A linear layer with the rows of its weight at length 1, and its bias from another one."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return functional.linear(x, functional.normalize(self.weight, dim=1), self.bias.exp() - 1)


def _relative_places(size: int) -> Tensor:
    """Which row of a table each pair of places of a window reads: [size ** 2, size ** 2]."""
    places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    apart = places[:, :, None] - places[:, None, :] + size - 1
    return apart[0] * (2 * size - 1) + apart[1]


class Window(nn.Module):
    """Attention within shifted windows of an image, as Swin has it: a table of biases by relative position, and a mask
    of what lies apart. `fused`: by `scaled_dot_product_attention`."""

    def __init__(self, width: int, extent: int, *, size: int = 4, shift: int = 2, fused: bool = False) -> None:
        super().__init__()
        self.size, self.shift, self.heads, self.fused = size, shift, 2, fused
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(0.2 * torch.randn((2 * size - 1) ** 2, self.heads))
        self.register_buffer("places", _relative_places(size))
        regions = torch.zeros(1, extent, extent, 1)
        for row, part in enumerate((slice(0, -size), slice(-size, -shift), slice(-shift, None))):
            regions[:, part] += row
            regions[:, :, part] += 3 * row
        of_window = self._windows(regions).squeeze(-1)
        apart = of_window[:, None, :] != of_window[:, :, None]
        self.register_buffer("mask", torch.zeros(apart.shape).masked_fill(apart, -100.0), persistent=False)

    def _windows(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        x = x.view(n, h // self.size, self.size, w // self.size, self.size, c)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, self.size**2, c)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        n, c, h, w = x.shape
        shortcut = x.permute(0, 2, 3, 1)
        x = self._windows(torch.roll(self.norm(shortcut), (-self.shift, -self.shift), (1, 2)))
        tokens, count = self.size**2, self.mask.shape[0]
        q, k, v = self.qkv(x).reshape(-1, tokens, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.places.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if self.fused:
            bias = bias + self.mask.view(1, count, 1, tokens, tokens).expand(n, -1, -1, -1, -1).reshape(
                -1, 1, tokens, tokens
            )
            x = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1) + bias
            scores = scores.view(n, count, self.heads, tokens, tokens) + self.mask.unsqueeze(1).unsqueeze(0)
            x = scores.view(-1, self.heads, tokens, tokens).softmax(-1) @ v
        x = self.out(x.transpose(1, 2).reshape(-1, tokens, c))
        x = x.view(n, h // self.size, w // self.size, self.size, self.size, c).permute(0, 1, 3, 2, 4, 5)
        x = torch.roll(x.contiguous().view(n, h, w, c), (self.shift, self.shift), (1, 2))
        return (shortcut + x).permute(0, 3, 1, 2)


class BiasedAttention(nn.Module):
    """Attention over an image with a bias for each distance, as LeViT has it: columns of a table by a constant."""

    def __init__(self, width: int, extent: int) -> None:
        super().__init__()
        self.heads = 2
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        rows = torch.arange(extent**2) // extent
        columns = torch.arange(extent**2) % extent
        apart = (rows[:, None] - rows).abs() * extent + (columns[:, None] - columns).abs()
        self.biases = nn.Parameter(0.2 * torch.randn(self.heads, extent**2))
        self.register_buffer("apart", apart)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).view(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        scores = q.transpose(-2, -1) @ k * (c // self.heads) ** -0.5 + self.biases[:, self.apart]
        return (v @ scores.softmax(-1).transpose(-2, -1)).reshape(n, c, h, w) + x


class Scaled(nn.Module):
    """A residual branch by a small learned factor for each channel, with global response normalisation before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.gamma = nn.Parameter(0.1 * torch.ones(channels))
        self.weight, self.bias = (nn.Parameter(0.1 * torch.randn(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y = functional.gelu(self.conv(x))
        size = y.norm(p=2, dim=(2, 3), keepdim=True)
        y = y + torch.addcmul(self.bias, self.weight, y * (size / (size.mean(1, keepdim=True) + 1e-6)))
        return x + y * self.gamma.view(1, -1, 1, 1)


class Reparametrised(nn.Module):
    """A convolution by the sum of two parameters, one of them padded, and a table of positions at another size."""

    def __init__(self, channels: int, extent: int) -> None:
        super().__init__()
        self.large = nn.Parameter(0.2 * torch.randn(channels, channels, 3, 3))
        self.small = nn.Parameter(0.2 * torch.randn(channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.positions = nn.Parameter(0.2 * torch.randn(1, channels, extent // 2, extent // 2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = x + functional.interpolate(self.positions, size=x.shape[2:], mode="bilinear", align_corners=False)
        return functional.conv2d(x, self.large + functional.pad(self.small, (1, 1, 1, 1)), self.bias * 2.0, padding=1)
