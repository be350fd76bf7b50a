"""Networks of one layer after the other: sensor windows, features, images down and up again."""

from __future__ import annotations

from torch import nn

from tests.support.models.layers import Residual


def sensor_cnn() -> nn.Module:
    """A network for windows of six sensor channels: [N, 6, 128] -> [N, 6]."""
    return nn.Sequential(
        nn.Sequential(nn.Conv1d(6, 16, 5, padding="same"), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2)),
        nn.Sequential(nn.Conv1d(16, 24, 4, padding="same", bias=False), nn.BatchNorm1d(24), nn.SiLU(), nn.AvgPool1d(2)),
        nn.Sequential(nn.Conv1d(24, 24, 3, 2, 1, groups=24), nn.Conv1d(24, 32, 1), nn.GroupNorm(4, 32), nn.Tanh()),
        nn.Sequential(nn.Conv1d(32, 32, 3, padding=2, dilation=2), nn.LeakyReLU(0.1)),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(32, 6),
    )


def mlp() -> nn.Module:
    """Features in, classes out: [N, 16] -> [N, 4]."""
    return nn.Sequential(
        nn.Sequential(nn.Linear(16, 48), nn.BatchNorm1d(48), nn.ReLU()),
        Residual(nn.Sequential(nn.Linear(48, 32), nn.LeakyReLU(0.05), nn.Linear(32, 48))),
        nn.Sequential(nn.Linear(48, 24), nn.BatchNorm1d(24, affine=False), nn.Sigmoid()),
        nn.Linear(24, 4),
    )


def autoencoder() -> nn.Module:
    """Down and up again, by all that enlarges images: [N, 3, 16, 16] -> [N, 10]."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.InstanceNorm2d(8, affine=True), nn.Mish()),
        nn.Sequential(nn.ConvTranspose2d(8, 12, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(12), nn.PReLU(12)),
        nn.Sequential(nn.Conv2d(12, 8, 3, 2, 1), nn.ELU(), nn.Upsample(scale_factor=2, mode="bilinear")),
        nn.Sequential(nn.Conv2d(8, 12, 3, 1, 1), nn.Softplus(), nn.Upsample(scale_factor=1.5)),
        nn.Sequential(nn.Conv2d(12, 16, 1, 2), nn.PixelShuffle(2), nn.ConvTranspose2d(4, 6, 2, 2), nn.SELU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    """Convolutions without padding, then three linear layers on what is flattened: [N, 1, 28, 28] -> [N, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 60), nn.ReLU(), nn.Dropout(0.0), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 10),
    )  # fmt: skip
