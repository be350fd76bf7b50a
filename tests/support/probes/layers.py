"""What the networks of `PROBES` are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tokens(nn.Module):
    """A linear layer of every token, `middle`, and a linear layer on the mean of its tokens."""

    def __init__(self, middle: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 8)
        self.middle = middle
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        y = self.middle(self.stem(x))
        return self.fc((y[0] if isinstance(y, tuple) else y).mean(1))


class With(nn.Module):
    """A function of one tensor and of parameters by name."""

    def __init__(self, function: Callable[..., Tensor], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(0.5 * torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of it."""
        return self.function(x, **dict(self.named_parameters()))


class Heads(nn.Module):
    """`attend(query, key, value)` of 4 heads of 2, keys and values of `groups` heads."""

    def __init__(self, attend: Callable[..., Tensor], groups: int = 4) -> None:
        super().__init__()
        self.attend, self.groups = attend, groups
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 2 * groups), nn.Linear(8, 2 * groups)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, T, 8]."""
        q, k, v = (
            layer(x).unflatten(2, (heads, 2)).transpose(1, 2)
            for layer, heads in ((self.q, 4), (self.k, self.groups), (self.v, self.groups))
        )
        return self.attend(q, k, v).transpose(1, 2).flatten(2)


class Padded(nn.Module):
    """Words of which those that are 0 are padding, `layer(x, padding)`, and the mean of the others."""

    def __init__(self, layer: Callable[[Tensor, Tensor], Tensor], module: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer, self.module = layer, module
        self.fc = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        """[N, T] -> [N, 4]."""
        padding = words == 0
        x = self.layer(self.embedding(words), padding)
        seen = (~padding).unsqueeze(2).float()
        return self.fc((x * seen).sum(1) / seen.sum(1).clamp(min=1))


class Encoder(nn.Module):
    """PyTorch's transformer of words with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        """[N, T] -> [N, 4]."""
        return self.fc(self.layer(self.embedding(words), src_key_padding_mask=words == 0)[:, 0])


class Bag(nn.Module):
    """Embeddings of words by `nn.EmbeddingBag`."""

    def __init__(self, mode: str, **settings: Any) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8, mode=mode, **settings)
        self.hidden, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        """[N, T] -> [N, 4]."""
        return self.fc(self.hidden(self.bag(words)).relu())


class SwiGLU(nn.Module):
    """A gated layer of a transformer of the Llama kind."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, T, 8]."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class DropPath(nn.Module):
    """Stochastic depth as packages of models write it: of an example all of a branch is dropped or none."""

    def __init__(self, branch: nn.Module, rate: float, draw: Callable[[Tensor, float], Tensor] | None = None) -> None:
        super().__init__()
        self.branch, self.rate = branch, rate
        self.draw = Tensor.bernoulli_ if draw is None else draw

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] -> [N, ...]."""
        y = self.branch(x)
        if self.rate == 0.0 or not self.training:
            return x + y
        kept = self.draw(y.new_empty((x.shape[0], *(1,) * (x.ndim - 1))), 1 - self.rate)
        return x + y * kept.div_(1 - self.rate)


class Last(nn.Module):
    """The last step of a recurrent layer with the time in front."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.fc = layer, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        return self.fc(self.layer(x.transpose(0, 1))[0][-1])


class State(nn.Module):
    """The states that a recurrent layer ends in, side by side."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.fc = layer, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        states = self.layer(x)[1]
        states = states[0] if isinstance(states, tuple) else states
        return self.fc(states.transpose(0, 1).flatten(1))


class SelfAttention(nn.Module):
    """PyTorch's multi-head attention with its weights as a second result."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, T, 8]."""
        y, weights = self.attention(x, x, x)
        return y + weights @ x


class TimeFirst(nn.Module):
    """PyTorch's encoder layer over time in front of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Linear(12, 8), nn.Linear(8, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        return self.fc(self.layer(self.stem(x).transpose(0, 1)).mean(0))


class Decoder(nn.Module):
    """PyTorch's decoder layer, whose memory is what it starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, T, 8]."""
        later = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layer(x, x.tanh(), tgt_mask=later, tgt_is_causal=True)


class Twice(nn.Module):
    """A layer of two inputs, both of which are the same."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of it."""
        return self.layer(x, x)


class Patches(nn.Module):
    """Patches of 32x32 as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.hidden, self.fc = nn.Conv2d(3, 8, 32, stride=32), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 64, 64] -> [N, 4]."""
        return self.fc(self.hidden(self.patches(x).flatten(2).transpose(1, 2)).relu().mean(1))


class Volume(nn.Module):
    """Convolutions of images over time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(4, 6, (1, 3, 3)), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, T, H, W] -> [N, 4]."""
        return self.fc(self.b(functional.max_pool3d(self.a(x).relu(), (1, 2, 2))).mean((2, 3, 4)))


class Cells(nn.Module):
    """A recurrent cell, step by step from zeros."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.fc = cell, nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        state = torch.zeros(x.shape[0], 6)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.fc(state)


class LongCells(nn.Module):
    """An LSTM's cell, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(12, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 12] -> [N, 4]."""
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.fc(state[0])  # type: ignore[index]  # there is a step


def still(layer: nn.Module) -> nn.Module:
    """A layer that its user has frozen."""
    return layer.requires_grad_(False)


def rotated(x: Tensor) -> Tensor:
    """Rotary embeddings by halves, as Llama has them: [N, heads, T, D]."""
    width = x.shape[-1]
    angles = torch.arange(x.shape[2])[:, None] / 100 ** (torch.arange(0, width, 2) / width)
    angles = torch.cat((angles, angles), -1)
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


def rotated_in_pairs(x: Tensor) -> Tensor:
    """Rotary embeddings of neighbours."""
    angles = torch.arange(x.shape[2])[:, None] * torch.ones(x.shape[-1])
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).reshape_as(x)
    return x * angles.cos() + turned * angles.sin()


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention written out, causal by a mask made in forward."""
    scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(q.shape[-1])
    hidden = torch.triu(torch.ones(q.shape[2], q.shape[2], dtype=torch.bool), diagonal=1)
    return torch.einsum("nhqk,nhkd->nhqd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v)
