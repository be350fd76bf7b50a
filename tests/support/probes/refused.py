"""What the export refuses, and how."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from tests.support.probes.probe import Probe, having, image, layer

REFUSED: dict[str, tuple[Probe, str]] = {
    "alpha_dropout": (layer(lambda: nn.AlphaDropout(0.2)), "aten.alpha_dropout.*the nearest that works is nn.Dropout"),
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
