"""A small transformer that reads characters and says which one comes next."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextTransformer(nn.Module):
    """Four encoder layers with LayerNorm first; tokens [N, length] (int64) -> logits [N, classes] of the next token.

    The tokens come from the same alphabet as the classes. The head reads the last place, so that every layer may look
    at all that came before it.
    """

    def __init__(self, *, width: int, classes: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(classes, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.layers = nn.Sequential(*(self._layer(width) for _ in range(4)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    @staticmethod
    def _layer(width: int) -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(
            width, max(1, width // 32), 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.layers(self.tokens(tokens) + self.positions)
        logits: Tensor = self.fc(self.norm(x[:, -1]))
        return logits
