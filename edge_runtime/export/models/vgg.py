"""VGG with BatchNorm for 32x32 images (Simonyan and Zisserman, 2015), with one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

_POOL = 0
_FEATURES = {
    "vgg11_bn": (1, _POOL, 2, _POOL, 4, 4, _POOL, 8, 8, _POOL, 8, 8, _POOL),
    "vgg16_bn": (1, 1, _POOL, 2, 2, _POOL, 4, 4, 4, _POOL, 8, 8, 8, _POOL, 8, 8, 8, _POOL),
}
"""Output channels as multiples of the width."""


class VGG(nn.Module):
    """[N, 3, 32, 32] -> [N, classes]."""

    def __init__(self, name: str, *, width: int, classes: int, input_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = input_channels
        for multiple in _FEATURES[name]:
            if multiple == _POOL:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [
                nn.Conv2d(channels, multiple * width, 3, padding=1),
                nn.BatchNorm2d(multiple * width),
                nn.ReLU(inplace=True),
            ]
            channels = multiple * width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                # The bias keeps PyTorch's default; BatchNorm behind it takes it away again.

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits
