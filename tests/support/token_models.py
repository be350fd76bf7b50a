"""Token models, written with `torch.nn` alone: `tests.support.token_models:vit` for `--model`.

Each is small enough that a test trains every block of it; the one of full size is beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Self-attention with a fused projection."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.proj(y.transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    """A transformer block with the norms in front."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, approximate: str = "none") -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, blocks, a norm and a linear layer on the class token."""

    def __init__(
        self, *, width: int, depth: int, heads: int, patch: int, size: int = 32, classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, size, size] -> [N, classes]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(self.drop(x)))[:, 0])


def vit() -> nn.Module:
    """[N, 3, 32, 32] -> [N, 10]."""
    return VisionTransformer(width=32, depth=3, heads=4, patch=8)


def vit_with_dropout() -> nn.Module:
    """The same with dropout everywhere, attention included."""
    return VisionTransformer(width=32, depth=2, heads=4, patch=8, dropout=0.2)


def vit_tiny() -> nn.Module:
    """ViT-tiny for small images, of full size: [N, 3, 32, 32] -> [N, 10]."""
    return VisionTransformer(width=192, depth=12, heads=3, patch=4)


class TextClassifier(nn.Module):
    """Embedding, positions, PyTorch's own encoder and the mean over tokens."""

    def __init__(self, *, norm_first: bool, dropout: float, vocabulary: int = 60, tokens: int = 12) -> None:
        super().__init__()
        width = 24
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.drop = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, 3, 48, dropout=dropout, activation="gelu", batch_first=True, norm_first=norm_first
        )
        norm = nn.LayerNorm(width) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, 2, norm=norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 12] of tokens -> [N, 4]."""
        x = self.drop(self.embedding(tokens) + self.positions)
        return self.head(self.encoder(x).mean(1))


def text() -> nn.Module:
    """Norms behind the layers, no dropout."""
    return TextClassifier(norm_first=False, dropout=0.0)


def text_norm_first() -> nn.Module:
    """Norms in front, with dropout."""
    return TextClassifier(norm_first=True, dropout=0.1)


class CausalReader(nn.Module):
    """Reads from left to right and classifies at the last token; attention is written out."""

    def __init__(self, width: int = 16, heads: int = 2, vocabulary: int = 30, tokens: int = 9) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(tokens, width)
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.ones(tokens, tokens, dtype=torch.bool).tril(), persistent=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 32), nn.GELU("tanh"), nn.Dropout(0.1), nn.Linear(32, width)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 9] of tokens -> [N, 3]."""
        n, count = tokens.shape
        x = self.embedding(tokens) + self.positions(torch.arange(count))
        y = self.norm(x)
        q, k, v = (f(y).view(n, count, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        x = x + self.out(y.transpose(1, 2).reshape(n, count, -1))
        x = x + self.mlp(x)
        return self.head(x[:, -1])


def causal_reader() -> nn.Module:
    """[N, 9] of tokens -> [N, 3]."""
    return CausalReader()


class WrittenOut(nn.Module):
    """Attention as a product, a softmax and a product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        scores = self.q(x) @ self.k(x).transpose(-1, -2) / x.shape[-1] ** 0.5
        return x + scores.softmax(-1) @ self.v(x)


def written_out() -> nn.Module:
    """[N, 6, 10] of features -> [N, 4]."""
    return nn.Sequential(
        nn.Linear(10, 16), WrittenOut(16), nn.LayerNorm(16), WrittenOut(16), nn.Flatten(), nn.Linear(96, 4)
    )


def mlp() -> nn.Module:
    """[N, 20] -> [N, 5]."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((20, 32), (32, 24), (24, 24)):
        layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU(), nn.Dropout(0.25)]
    return nn.Sequential(*layers, nn.Linear(24, 5))
