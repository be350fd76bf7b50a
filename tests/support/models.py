"""Networks of other people's kinds, written with `torch.nn` alone: `tests.support.models:mobilenet_v2` for `--model`.

Each is small enough that a test trains every block of it; those of full size are beside them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """x + inner(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.inner(x)


class SqueezeExcitation(nn.Module):
    """Channels weighted by what they are on average."""

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, activation: Callable[[], nn.Module] | None, groups: int = 1
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return layers if activation is None else [*layers, activation()]


def _inverted_residual(
    inputs: int,
    expanded: int,
    outputs: int,
    kernel: int,
    stride: int,
    activation: Callable[[], nn.Module],
    squeeze: Callable[[int], nn.Module] | None = None,
) -> nn.Module:
    layers = _convolution(inputs, expanded, 1, 1, activation) if expanded != inputs else []
    layers += _convolution(expanded, expanded, kernel, stride, activation, groups=expanded)
    if squeeze is not None:
        layers.append(squeeze(expanded))
    layers += _convolution(expanded, outputs, 1, 1, None)
    inner = nn.Sequential(*layers)
    return Residual(inner) if stride == 1 and inputs == outputs else inner


class Classifier(nn.Module):
    """Features, global average pooling, a classifier."""

    def __init__(self, features: list[nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.features(x).mean((2, 3)))


def _relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def _mobilenet_v2(
    settings: list[tuple[int, int, int, int]], stem: int, stride: int, last: int, classes: int
) -> nn.Module:
    layers: list[nn.Module] = [nn.Sequential(*_convolution(3, stem, 3, stride, _relu6))]
    channels = stem
    for expansion, outputs, count, first_stride in settings:
        for position in range(count):
            step = first_stride if position == 0 else 1
            layers.append(_inverted_residual(channels, channels * expansion, outputs, 3, step, _relu6))
            channels = outputs
    layers.append(nn.Sequential(*_convolution(channels, last, 1, 1, _relu6)))
    return Classifier(layers, nn.Sequential(nn.Dropout(0.0), nn.Linear(last, classes)))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 in small: [N, 3, 32, 32] -> [N, 10]."""
    return _mobilenet_v2([(1, 8, 1, 1), (4, 12, 2, 2), (4, 16, 2, 2), (4, 24, 1, 2)], 8, 1, 48, 10)


def mobilenet_v2_full() -> nn.Module:
    """MobileNetV2, width 1, for small images: [N, 3, 32, 32] -> [N, 10]."""
    settings = [
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    return _mobilenet_v2(settings, 32, 1, 1280, 10)


def _hard(channels: int) -> nn.Module:
    return SqueezeExcitation(channels, max(4, channels // 4), nn.ReLU(), nn.Hardsigmoid())


def mobilenet_v3() -> nn.Module:
    """Like MobileNetV3-small, with its classifier of two linear layers: [N, 3, 32, 32] -> [N, 10]."""
    layers: list[nn.Module] = [nn.Sequential(*_convolution(3, 8, 3, 1, nn.Hardswish))]
    layers.append(_inverted_residual(8, 8, 8, 3, 2, nn.ReLU, _hard))
    layers.append(_inverted_residual(8, 24, 12, 3, 2, nn.ReLU))
    layers.append(_inverted_residual(12, 36, 12, 3, 1, nn.ReLU))
    layers.append(_inverted_residual(12, 48, 20, 5, 2, nn.Hardswish, _hard))
    layers.append(_inverted_residual(20, 60, 20, 5, 1, nn.Hardswish, _hard))
    layers.append(nn.Sequential(*_convolution(20, 60, 1, 1, nn.Hardswish)))
    return Classifier(layers, nn.Sequential(nn.Linear(60, 40), nn.Hardswish(), nn.Dropout(0.0), nn.Linear(40, 10)))


def _efficientnet(settings: list[tuple[int, int, int, int, int]], stem: int, last: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Sequential(*_convolution(3, stem, 3, 1, nn.SiLU))]
    channels = stem
    for expansion, outputs, count, stride, kernel in settings:
        for position in range(count):
            squeezed = max(1, channels // 4)

            def squeeze(expanded: int, squeezed: int = squeezed) -> nn.Module:
                return SqueezeExcitation(expanded, squeezed, nn.SiLU(), nn.Sigmoid())

            step = stride if position == 0 else 1
            expanded = channels * expansion
            layers.append(_inverted_residual(channels, expanded, outputs, kernel, step, nn.SiLU, squeeze))
            channels = outputs
    layers.append(nn.Sequential(*_convolution(channels, last, 1, 1, nn.SiLU)))
    return Classifier(layers, nn.Linear(last, 10))


def efficientnet() -> nn.Module:
    """Like EfficientNet-B0, in small: [N, 3, 32, 32] -> [N, 10]."""
    return _efficientnet([(1, 8, 1, 1, 3), (4, 12, 2, 2, 3), (4, 16, 1, 2, 5), (4, 24, 2, 2, 3)], 8, 48)


def efficientnet_full() -> nn.Module:
    """EfficientNet-B0's stages for small images, without stochastic depth: [N, 3, 32, 32] -> [N, 10]."""
    settings = [(1, 16, 1, 1, 3), (6, 24, 2, 1, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
                (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]  # fmt: skip
    return _efficientnet(settings, 32, 1280)


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


class DenseStage(nn.Module):
    """Every layer sees what all before it put out."""

    def __init__(self, channels: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + i * growth),
                nn.ReLU(),
                nn.Conv2d(channels + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + count * growth, H, W]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> nn.Module:
    """Like DenseNet: [N, 3, 32, 32] -> [N, 10]."""
    features: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1, bias=False)]
    channels = 8
    for stage in range(3):
        features.append(DenseStage(channels, 8, 2))
        channels += 16
        if stage < 2:
            features.append(
                nn.Sequential(
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                    nn.AvgPool2d(2),
                )
            )
            channels //= 2
    features += [nn.BatchNorm2d(channels), nn.ReLU()]
    return Classifier(features, nn.Linear(channels, 10))


class Inception(nn.Module):
    """Parallel branches, joined along the channels, each channel scaled by a weight of its own."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        each = outputs // 4
        self.one = nn.Conv2d(inputs, each, 1)
        self.three = nn.Sequential(nn.Conv2d(inputs, each, 1), nn.SiLU(), nn.Conv2d(each, each, 3, padding="same"))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, each, 1))
        self.mean = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(inputs, each, 1))
        self.norm = nn.GroupNorm(groups, outputs)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, outputs).reshape(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        joined = torch.cat([self.one(x), self.three(x), self.pool(x), self.mean(x)], 1)
        return torch.relu(self.norm(joined)) * self.scale


class ShuffleStage(nn.Module):
    """Half of the channels convolved, then all of them shuffled; padded by hand and halved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels // 2, channels // 2, 3, 1, 0)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H / 2, W / 2]."""
        kept, changed = x.chunk(2, dim=1)
        changed = self.convolution(nn.functional.pad(changed, (1, 1, 1, 1), value=0.1))
        joined = torch.cat([kept, changed - 0.5 * kept], dim=1)
        n, c, h, w = joined.shape
        shuffled = joined.reshape(n, 2, c // 2, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
        return nn.functional.adaptive_avg_pool2d(self.norm(shuffled), (h // 2, w // 2))


def inception() -> nn.Module:
    """Branches, shuffled channels and GroupNorm, no BatchNorm: [N, 3, 32, 32] -> [N, 10]."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Hardswish()),
        Inception(8, 16, 4),
        ShuffleStage(16),
        Inception(16, 32, 8),
        nn.Sequential(nn.Conv2d(32, 10, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
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


class DeepTransformer(nn.Module):
    """Patches as tokens, many narrow layers, their mean."""

    def __init__(self, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True) for _ in range(depth)
        )
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 32, 32] -> [N, 10]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


def deep_transformer() -> nn.Module:
    """Large and small tensors of a long frozen prefix beside each other: [N, 3, 32, 32] -> [N, 10]."""
    return DeepTransformer()


def lenet() -> nn.Module:
    """Convolutions without padding, then three linear layers on what is flattened: [N, 1, 28, 28] -> [N, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 60), nn.ReLU(), nn.Dropout(0.0), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 10),
    )  # fmt: skip


class NormHead(nn.Module):
    """A head with a normalisation of its own: pooling, a 1x1 convolution with BatchNorm and ReLU, a linear layer."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.conv = nn.Conv2d(inputs, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.fc = nn.Linear(4 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes]."""
        return self.fc(torch.relu(self.norm(self.conv(self.pool(x)))).flatten(1))


class WithNormHead(nn.Module):
    """Two stages and such a head, whose frozen normalisation a distillation passes gradients through."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.stage3 = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = NormHead(16, 12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 16, 16] -> [N, 10]."""
        return self.head(self.stage3(self.stage2(self.stage1(x))))


def norm_head() -> nn.Module:
    """[N, 3, 16, 16] -> [N, 10]; `--head head`."""
    return WithNormHead()


class Wrapped(nn.Module):
    """A network in an attribute, as training frameworks keep it: every name begins with `inner.`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """What the network answers."""
        return self.inner(x)


def wrapped() -> nn.Module:
    """[N, 3, 8, 8] -> [N, 10]."""
    return Wrapped(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    )
