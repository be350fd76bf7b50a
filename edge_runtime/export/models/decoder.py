"""A small decoder of the kind of Llama that reads characters and says which one comes next."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.errors import UsageError

_BASE = 10000.0


class TextDecoder(nn.Module):
    """Four layers of RMSNorm, causal attention with rotary positions and two query heads for each key head, and SwiGLU;
    tokens [N, length] (int64) -> logits [N, classes] of the next token.

    The tokens come from the same alphabet as the classes.
    """

    def __init__(self, *, width: int, classes: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(classes, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.layers = nn.Sequential(*(_Layer(width, length) for _ in range(4)))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.fc = nn.Linear(width, classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.layers(self.tokens(tokens))
        logits: Tensor = self.fc(self.norm(x[:, -1]))
        return logits


class _Layer(nn.Module):
    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.attention = _Attention(width, length)
        self.feed_norm = nn.RMSNorm(width, eps=1e-5)
        inner = 8 * width // 3
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        y = self.feed_norm(x)
        fed: Tensor = self.down_proj(functional.silu(self.gate_proj(y)) * self.up_proj(y))
        return x + fed


class _Attention(nn.Module):
    """Two heads for each 32 of the width, half as many for keys and values as for queries."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.heads = 2 * max(1, width // 32)
        self.size = width // self.heads
        if self.size % 2 or self.size * self.heads != width:
            raise UsageError("is no width of this decoder", field="width", value=width, remedy="give a multiple of 32")
        groups = self.heads // 2
        self.groups = groups
        self.q_proj = nn.Linear(width, self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(width, groups * self.size, bias=False)
        self.v_proj = nn.Linear(width, groups * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, width, bias=False)
        rates = _BASE ** (-torch.arange(0, self.size, 2) / self.size)
        angles = torch.outer(torch.arange(length), rates).repeat(1, 2)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (
            projection(x).view(batch, length, count, self.size).transpose(1, 2)
            for projection, count in ((self.q_proj, self.heads), (self.k_proj, self.groups), (self.v_proj, self.groups))
        )
        attended = functional.scaled_dot_product_attention(
            self._turned(query), self._turned(key), value, is_causal=True, enable_gqa=True
        )
        out: Tensor = self.o_proj(attended.transpose(1, 2).reshape(batch, length, width))
        return out

    def _turned(self, x: Tensor) -> Tensor:
        """By its position, each pair of numbers at its own rate."""
        first, second = x.chunk(2, -1)
        return x * self.cosine + torch.cat((-second, first), -1) * self.sine
