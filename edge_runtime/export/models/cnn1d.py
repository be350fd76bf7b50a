"""A convolutional network over time, for windows of sensors such as those of watches."""

from __future__ import annotations

from torch import Tensor, nn


class Cnn1d(nn.Module):
    """Four stages of two convolutions, BatchNorm, ReLU; the last three halve the time. [N, C, L] -> [N, classes]."""

    def __init__(self, *, width: int, classes: int, input_channels: int) -> None:
        super().__init__()
        self.stage1 = self._stage(input_channels, width, 1)
        self.stage2 = self._stage(width, 2 * width, 2)
        self.stage3 = self._stage(2 * width, 4 * width, 2)
        self.stage4 = self._stage(4 * width, 8 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(8 * width, classes)

    @staticmethod
    def _stage(input_channels: int, channels: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(input_channels, channels, 5, stride, 2, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            nn.Conv1d(channels, channels, 5, 1, 2, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits
