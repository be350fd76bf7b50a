"""A small convolutional network for tests and very small devices."""

from __future__ import annotations

from torch import Tensor, nn


class Cnn(nn.Module):
    """Three stages of convolution, BatchNorm, ReLU; the last two halve the image. [N, 3, H, W] -> [N, classes]."""

    def __init__(self, *, width: int, classes: int, input_channels: int) -> None:
        super().__init__()
        self.stage1 = self._stage(input_channels, width, 1)
        self.stage2 = self._stage(width, 2 * width, 2)
        self.stage3 = self._stage(2 * width, 4 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(input_channels: int, channels: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(input_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits
