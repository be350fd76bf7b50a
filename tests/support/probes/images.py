"""Weights, windows, what is dropped and what forward makes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.support.odd_layers import AroundSequence
from tests.support.probes.computed import floored
from tests.support.probes.layers import DropPath, Patches, Volume, still
from tests.support.probes.probe import (
    Probe,
    having,
    image,
    layer,
    sequence,
    shifted,
    token_function,
    written,
    written_in_part,
    written_with_numbers,
)

OF_IMAGES: dict[str, Probe] = {
    # weights
    "weight_norm": layer(lambda: nn.utils.weight_norm(nn.Conv2d(6, 6, 3, padding=1))),
    "weight_norm_parametrised": layer(lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1), dim=1)),
    "renorm": having(lambda x, w: functional.conv2d(x, w.renorm(2, 0, 0.4)), w=(6, 6, 1, 1)),
    "frozen_layer": layer(lambda: nn.Sequential(still(nn.Conv2d(6, 6, 3)), nn.ReLU(), nn.BatchNorm2d(6))),
    "frozen_norm": layer(lambda: still(nn.BatchNorm2d(6))),
    "joined_parameters": token_function(lambda x, a, b: x @ torch.cat((a, b), 1), a=(8, 5), b=(8, 3)),
    "stacked_parameters": token_function(lambda x, a, b: x * torch.stack((a, b)).softmax(0)[0], a=(8,), b=(8,)),
    "class_token": token_function(lambda x, a: torch.cat((a.expand(x.shape[0], -1, -1), x), 1), a=(1, 1, 8)),
    "joined_in_many_parts": image(
        lambda x: torch.cat([x[:, :, i % 6 : i % 6 + 1] * (i + 1) for i in range(70)], 1), 420
    ),
    "joined_constant": image(lambda x: torch.cat((x, torch.ones_like(x[:, :1])), 1), 7),
    "coordinates": image(
        lambda x: torch.cat(
            (
                x,
                torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in x.shape[2:]), indexing="ij")).expand(
                    x.shape[0], -1, -1, -1
                ),
            ),
            1,
        ),
        8,
    ),
    # made in forward
    "reshape_as": image(lambda x: (x.flatten(1) * 2).reshape_as(x)),
    "new_empty": image(lambda x: x + x.new_empty(1).fill_(0.5) + x.new_zeros(6, 1, 1) + x.new_tensor([1.0])),
    "padded_with_ones": image(lambda x: functional.pad(x, (1, 1, 1, 1), value=1.0)),
    "written_into": image(written),
    "written_in_part": image(written_in_part),
    "written_with_numbers": image(written_with_numbers),
    # dropping
    "drop_path_off": layer(lambda: DropPath(nn.Conv2d(6, 6, 1), 0.0)),
    "drop_path": layer(lambda: DropPath(nn.Conv2d(6, 6, 1), 0.2)),
    "drop_path_written_out": layer(lambda: DropPath(nn.Conv2d(6, 6, 1), 0.2, draw=floored)),
    "drop_channels": layer(lambda: nn.Dropout2d(0.3)),
    "drop_channels_of_sequence": sequence(lambda: nn.Dropout1d(0.3)),
    "drop_in_place": layer(lambda: nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout(0.3, inplace=True))),
    # dimensions
    "nine_dimensions": image(
        lambda x: (
            functional.interpolate(x, 12)
            .reshape(-1, 2, 3, 2, 2, 3, 2, 2, 3)
            .permute(0, 8, 5, 2, 7, 4, 1, 6, 3)
            .flatten(3)
            .flatten(1)
            .reshape(-1, 6, 12, 12)
        )
    ),
    "nine_dimensions_in_steps": image(
        lambda x: (
            functional.interpolate(x, 12)
            .reshape(-1, 2, 3, 2, 6, 2, 6)
            .permute(0, 5, 3, 1, 4, 6, 2)
            .unflatten(4, (2, 3))
            .unflatten(6, (3, 2))
            .permute(0, 7, 5, 3, 1, 8, 6, 4, 2)
            .reshape(-1, 6, 12, 12)
        )
    ),
    # windows
    "unfold": image(lambda x: functional.unfold(x, 3, padding=1, stride=2).unflatten(2, (3, 3)), 54),
    "fold": image(lambda x: functional.fold(functional.unfold(x, 3, padding=1), (6, 6), 3, padding=1)),
    "reflect": layer(lambda: nn.Conv2d(6, 6, 3, padding=2, padding_mode="reflect")),
    "replicate": layer(lambda: nn.Conv2d(6, 6, 3, padding=2, padding_mode="replicate")),
    "reflect_sequence": sequence(lambda: nn.ReflectionPad1d((2, 3))),
    "bicubic": image(lambda x: functional.interpolate(x, size=(9, 4), mode="bicubic", align_corners=False)),
    "bicubic_corners": image(lambda x: functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True)),
    "area": image(lambda x: functional.interpolate(x, size=(4, 3), mode="area")),
    "large_kernel": layer(lambda: nn.Conv2d(6, 6, 17, padding=8)),
    "large_depthwise_kernel": layer(lambda: nn.Conv2d(6, 6, 17, padding=8, groups=6)),
    "patches_of_32": Probe(make=lambda: Patches(), input_shape=(3, 64, 64)),
    "long_kernel": Probe(
        make=lambda: AroundSequence(nn.Conv1d(6, 6, 300, stride=7, padding=150)), input_shape=(5, 400)
    ),
    "conv_transpose": layer(lambda: nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups=3)),
    "conv_transpose_dilated": layer(lambda: nn.ConvTranspose2d(6, 6, 3, dilation=2)),
    "conv_transpose_sequence": sequence(lambda: nn.ConvTranspose1d(6, 6, 4, 2, 1)),
    "conv3d": Probe(make=lambda: Volume(), input_shape=(3, 4, 6, 6)),
    "pixel_shuffle": layer(lambda: nn.Sequential(nn.Conv2d(6, 24, 1), nn.PixelShuffle(2))),
    "adaptive_average": layer(lambda: nn.AdaptiveAvgPool2d((4, 5))),
    "adaptive_maximum": layer(lambda: nn.AdaptiveMaxPool2d((4, None))),
    "power_average": layer(lambda: nn.LPPool2d(2, 2)),
    "general_mean": having(lambda x, p: functional.avg_pool2d(shifted(x).pow(p), 3).pow(1 / p), p=(1,)),
    "max_pool_dilated": layer(lambda: nn.MaxPool2d(2, 1, dilation=2, ceil_mode=True)),
    "local_response_norm": layer(lambda: nn.LocalResponseNorm(3)),
    "instance_norm": layer(lambda: nn.InstanceNorm2d(6)),
    "instance_norm_sequence": sequence(lambda: nn.InstanceNorm1d(6, affine=True)),
    "group_norm": layer(lambda: nn.GroupNorm(3, 6)),
    "layer_norm_of_channels": image(lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)),
}
