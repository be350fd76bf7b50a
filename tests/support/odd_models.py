"""Networks with operators that are seldom seen, for `--model tests.support.odd_models:<name>`.

Each is as small as it can be with its operator in the middle, between layers with weights; `ODD` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.any_layers import BiasedAttention, Reparametrised, Scaled, ScaledLinear, StandardisedConv, Window
from tests.support.odd_functions import COMPLEX, IN_PLACE, WithNeedless
from tests.support.odd_layers import (
    Around,
    AroundSequence,
    Excitation,
    Function,
    Mixed,
    PatchEmbedding,
    Recurrent,
    Skips,
    Swap,
)

IMAGE, SEQUENCE = (3, 8, 8), (5, 12)


def _shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _argument(x: Tensor) -> Tensor:
    return torch.fft.fft(x).angle()


def _without_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return x.float() @ x.float() + x


def _function(function: Callable[[Tensor], Tensor], channels: int = 6) -> Callable[[], nn.Module]:
    return lambda: Around(Function(function), channels)


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A network, its inputs, and what a refusal says, where it is refused."""

    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...] = IMAGE
    options: dict[str, Any] = field(default_factory=dict)
    refusal: str | None = None


ODD: dict[str, Odd] = {
    "gru": Odd(make=lambda: Recurrent(nn.GRU(12, 8, batch_first=True)), input_shape=SEQUENCE),
    "lstm": Odd(make=lambda: Recurrent(nn.LSTM(12, 8, batch_first=True)), input_shape=SEQUENCE),
    "group_norm_silu": Odd(make=lambda: Around(nn.Sequential(nn.GroupNorm(2, 6), nn.SiLU()))),
    "einsum": Odd(make=lambda: Around(Mixed())),
    "where": Odd(make=_function(lambda x: torch.where(x > 0, x, 0.1 * x))),
    "where_of_two": Odd(make=_function(lambda x: torch.where((x < x.tanh()) | ~(x >= -0.2), x.tanh(), x))),
    "masked": Odd(make=_function(lambda x: x.masked_fill(torch.eye(8, dtype=torch.bool), 0.5).masked_fill(x > 1, 2.0))),
    "masked_scores": Odd(
        make=_function(lambda x: x.masked_fill(torch.ones(8, 8, dtype=torch.bool).triu(1), -torch.inf).softmax(-1))
    ),
    "truths_as_numbers": Odd(make=_function(lambda x: x * (x > 0.1) + (x <= -0.1).float() * x.tanh())),
    **{name: Odd(make=_function(function)) for name, function in (COMPLEX | IN_PLACE).items()},
    "needless_branch": Odd(make=lambda: Around(WithNeedless())),
    "fourier_of_many": Odd(
        make=_function(lambda x: torch.fft.rfft(x, n=5000).abs()), refusal="of more than 4096 elements"
    ),
    "complex_argument": Odd(
        make=_function(_argument), refusal=r"operator aten.angle.default \(line .* complex numbers"
    ),
    "conv_transpose": Odd(make=lambda: Around(nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), 4)),
    "conv_transpose_groups": Odd(make=lambda: Around(nn.ConvTranspose2d(6, 4, 2, 2, groups=2, bias=False), 4)),
    "pixel_shuffle": Odd(make=lambda: Around(nn.Sequential(nn.Conv2d(6, 24, 1), nn.PixelShuffle(2)))),
    "pixel_unshuffle": Odd(make=lambda: Around(nn.PixelUnshuffle(2), 24)),
    "instance_norm": Odd(make=lambda: Around(nn.InstanceNorm2d(6, affine=True))),
    "squeeze_excite": Odd(make=lambda: Around(Excitation())),
    "channel_shuffle": Odd(make=_function(_shuffled)),
    "nn_channel_shuffle": Odd(make=lambda: Around(nn.ChannelShuffle(2))),
    "softplus": Odd(make=lambda: Around(nn.Softplus())),
    "prelu": Odd(make=lambda: Around(nn.PReLU(6))),
    "batch_statistics": Odd(
        make=lambda: Around(nn.BatchNorm2d(6, track_running_stats=False)),
        refusal="aten.batch_norm.*without running statistics",
    ),
    "upsample_nearest": Odd(make=lambda: Around(nn.Upsample(scale_factor=2))),
    "upsample_bilinear": Odd(make=lambda: Around(nn.Upsample(scale_factor=2, mode="bilinear"))),
    "upsample_corners": Odd(make=lambda: Around(nn.UpsamplingBilinear2d(size=(11, 13)))),
    "interpolate_odd": Odd(make=_function(lambda x: functional.interpolate(x, size=(13, 5)))),
    "wide_kernel": Odd(make=lambda: Around(nn.Conv2d(6, 6, 13, padding=6))),
    "wide_kernel_depthwise": Odd(make=lambda: Around(nn.Conv2d(6, 6, 13, padding=6, groups=6))),
    "patches": Odd(make=PatchEmbedding, input_shape=(3, 32, 48)),
    "sound": Odd(make=lambda: AroundSequence(nn.Conv1d(6, 6, 160, stride=4, padding=80)), input_shape=(5, 200)),
    "strided_slices": Odd(make=_function(lambda x: x[:, ::2, 1::2, ::3], 3)),
    "chunks": Odd(make=_function(lambda x: torch.cat([p.relu() for p in x.chunk(4, 1)][::-1], 1))),
    "select": Odd(make=_function(lambda x: x[:, 2:3] * x.select(2, 1).unsqueeze(2))),
    "splits": Odd(make=_function(lambda x: sum(p.relu() for p in x.split(3, 1)), 3)),
    "stack": Odd(make=_function(lambda x: torch.stack([x.relu(), x.tanh()], 1).flatten(1, 2), 12)),
    "repeat": Odd(make=_function(lambda x: x.repeat(1, 2, 1, 1), 12)),
    "repeat_interleave": Odd(make=_function(lambda x: x.repeat_interleave(2, 1), 12)),
    "flip": Odd(make=_function(lambda x: x.flip(3))),
    "doubled": Odd(make=_function(lambda x: x + x)),
    "tripled": Odd(make=_function(lambda x: x + x + x)),
    "minus_itself": Odd(make=_function(lambda x: x - x + x)),
    "over_itself": Odd(make=_function(lambda x: x / x + x)),
    "summand_again": Odd(make=lambda: Around(Skips(lambda a, b, f, g: f(a + b) + b))),
    "summand_through_another": Odd(make=lambda: Around(Skips(lambda a, b, f, g: f(a + b) + g(a)))),
    "nested_skips": Odd(make=lambda: Around(Skips(lambda a, b, f, g: g(f(a + b) + b) + a))),
    "long_skip": Odd(make=lambda: Around(Skips(lambda a, b, f, g: g(f(a).relu() + a) + a + b))),
    "hierarchical": Odd(make=lambda: Around(Skips(lambda a, b, f, g: torch.cat([f(a), g(b + f(a)), b], 1)), 18)),
    "autocast": Odd(make=_function(_without_autocast)),
    "rolled": Odd(make=_function(lambda x: x.roll((1, -3), (2, 3)) + x.roll(2, 1))),
    "gathered": Odd(make=_function(lambda x: x[:, [3, 1, 1]][:, :, [[0], [-2]], [[5, 5, 1]]], 3)),
    "windows": Odd(make=_function(lambda x: x.unfold(3, 3, 2).mean(-1))),
    "replicated": Odd(make=lambda: Around(nn.ReplicationPad2d((2, 0, 1, 3)))),
    "circular": Odd(make=lambda: Around(nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"))),
    "window_attention": Odd(make=lambda: Around(Window(6, 8))),
    "window_attention_fused": Odd(make=lambda: Around(Window(6, 8, fused=True))),
    "biased_attention": Odd(make=lambda: Around(BiasedAttention(6, 8))),
    "layer_scale": Odd(make=lambda: Around(Scaled(6))),
    "reparametrised": Odd(make=lambda: Around(Reparametrised(6, 8))),
    "standardised": Odd(make=lambda: Around(StandardisedConv(6, 6, 3, padding=1))),
    "standardised_gain": Odd(make=lambda: Around(StandardisedConv(6, 6, 3, gain=True))),
    "standardised_by_hand": Odd(make=lambda: Around(StandardisedConv(6, 6, 3, way="var_mean", gain=True))),
    "normalised_weight": Odd(make=lambda: Around(nn.Sequential(Swap(), ScaledLinear(6, 6), Swap()))),
    "limits": Odd(make=_function(lambda x: x.clamp(min=-0.2) + x.clamp(max=0.1) + x.clamp(-0.3, 0.3))),
    "roots": Odd(make=_function(lambda x: (x * x + 1).sqrt() + (x.abs() + 1).log() + (x * x + 2).rsqrt() + x**3)),
    "unit_length": Odd(make=_function(lambda x: torch.nn.functional.normalize(x, dim=1))),
    "logsumexp": Odd(make=_function(lambda x: x - x.logsumexp(1, keepdim=True))),
    "fused_products": Odd(make=_function(lambda x: torch.addcmul(x, x.tanh(), x, value=0.3).add(x.relu(), alpha=0.5))),
    "power": Odd(make=_function(lambda x: x**2)),
    "softmax_over_channels": Odd(make=_function(lambda x: x.softmax(1))),
    "dropout2d_off": Odd(make=lambda: Around(nn.Dropout2d(0.0))),
    "data_dependent": Odd(
        make=_function(lambda x: x if x.sum() > 0 else x.relu()),
        refusal="torch.export cannot trace the model.*data-dependent",
    ),
}


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """The factory of an odd model, as `package.module:factory` asks for it."""
    if name not in ODD:
        raise AttributeError(name)
    return ODD[name].make


def partly_frozen() -> nn.Module:
    """Two of three layers that the user has frozen: [N, 8] -> [N, 4]."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    for layer in (model[0], model[2]):
        layer.requires_grad_(False)
    return model


def cumulative_average() -> nn.Module:
    """A BatchNorm whose statistics are the average of all batches: [N, 8] -> [N, 4]."""
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Linear(8, 4))


class Deciding(nn.Module):
    """Runs one thing or another, by the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] -> [N, 4]."""
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def deciding() -> nn.Module:
    """Control flow that cannot be traced."""
    return Deciding()


class Multiplying(nn.Module):
    """An operator without a kernel, called by the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] -> [N, 4]."""
        return self.layer(x).lgamma()


def multiplying() -> nn.Module:
    """Products of all that came before."""
    return Multiplying()
