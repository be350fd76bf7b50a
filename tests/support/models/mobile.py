"""Networks of depthwise convolutions: MobileNetV2, MobileNetV3 and EfficientNet, in small and of full size."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tests.support.models.layers import Classifier, Residual


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
