"""What computes places and draws by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def floored(like: Tensor, share: float) -> Tensor:
    """A draw as `transformers` writes it."""
    drawn = share + torch.rand(like.shape, dtype=like.dtype, device=like.device)
    return drawn.floor_()


class LastWord(nn.Module):
    """Words with positions counted past the padding, of which the last one is classified, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(20, 8), nn.Linear(8, 4)
        self.places = nn.Embedding(10, 8, padding_idx=1)
        self.mix = nn.Linear(8, 8)

    def forward(self, words: Tensor) -> Tensor:
        """[N, T] -> [N, 4]."""
        there = words.ne(0).int()
        places = (torch.cumsum(there, dim=1).type_as(there) * there).long() + 1
        x = self.mix(self.embedding(words) + self.places(places)).relu()
        last = (torch.arange(words.shape[1], dtype=torch.int32) * there).argmax(-1)
        return self.fc(x)[torch.arange(words.shape[0]), last]
