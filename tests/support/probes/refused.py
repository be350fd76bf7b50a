"""What the export refuses, and how."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.probes.probe import Probe, having, image, layer, written


def _written(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :3] = x[:, 3:]
    y[:, 3:] = x[:, :3].tanh()
    return y


REFUSED: dict[str, tuple[Probe, str]] = {
    "argmax_gate": (
        image(lambda x: x * functional.one_hot(x.argmax(1), 6).permute(0, 3, 1, 2).float()),
        "aten.argmax.*the nearest that works is softmax",
    ),
    "cumprod": (
        image(lambda x: (1 + 0.1 * x.tanh()).cumprod(3)),
        "aten.cumprod.*the nearest that works is exp of the cumsum",
    ),
    "alpha_dropout": (layer(lambda: nn.AlphaDropout(0.2)), "aten.alpha_dropout.*the nearest that works is nn.Dropout"),
    "written_into": (image(lambda x: written(x)), "aten.copy_"),
    "antialiased": (
        image(lambda x: functional.interpolate(x, size=(4, 4), mode="bilinear", antialias=True)),
        "aten._upsample_bilinear2d_aa",
    ),
    "max_pool_indices": (
        image(lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2)),
        "aten.max_pool2d|max_pool2d_with_indices",
    ),
    "grid_sample": (
        having(
            lambda x, a: functional.grid_sample(
                x,
                functional.affine_grid(a.tanh().expand(x.shape[0], -1, -1), list(x.shape), align_corners=False),
                align_corners=False,
            ),
            a=(1, 2, 3),
        ),
        "aten.grid_sampler.*the nearest that works is interpolate",
    ),
}
