"""Built-in models: ordinary PyTorch modules with the tensor names their users know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_profiles.contract import DType
from device_profiles.errors import UsageError
from device_profiles.settings import Setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltIn:
    """A model of this package; `width` is the channel count of its first convolution, or the width of its tokens.

    Attributes:
        input_shape: one example, by default: channels x height x width, channels x time, or tokens.
        classes: by default; a model of tokens has as many different ones.
    """

    name: str
    description: str
    input_shape: tuple[int, ...]
    input_dtype: DType = "float32"
    classes: int = 10
    width: int
    default_blocks: tuple[tuple[int, int], ...]


BUILT_IN = {
    model.name: model
    for model in (
        BuiltIn(
            name="resnet18",
            description="ResNet-18 with the CIFAR stem (3x3, stride 1, no max-pool)",
            input_shape=(3, 32, 32),
            width=64,
            default_blocks=((0, 2), (3, 4), (5, 6), (7, 8)),
        ),
        BuiltIn(
            name="resnet34",
            description="ResNet-34 with the CIFAR stem",
            input_shape=(3, 32, 32),
            width=64,
            default_blocks=((0, 3), (4, 7), (8, 13), (14, 16)),
        ),
        BuiltIn(
            name="vgg11_bn",
            description="VGG-11 with BatchNorm and one linear layer",
            input_shape=(3, 32, 32),
            width=64,
            default_blocks=((0, 1), (2, 3), (4, 5), (6, 7)),
        ),
        BuiltIn(
            name="vgg16_bn",
            description="VGG-16 with BatchNorm and one linear layer",
            input_shape=(3, 32, 32),
            width=64,
            default_blocks=((0, 3), (4, 6), (7, 9), (10, 12)),
        ),
        BuiltIn(
            name="cnn",
            description="three convolutions with BatchNorm, for tests and small devices",
            input_shape=(3, 32, 32),
            width=16,
            default_blocks=((0, 0), (1, 1), (2, 2)),
        ),
        BuiltIn(
            name="cnn1d",
            description="eight convolutions over time with BatchNorm, for windows of sensors",
            input_shape=(6, 128),
            classes=7,
            width=16,
            default_blocks=((0, 1), (2, 3), (4, 5), (6, 7)),
        ),
        BuiltIn(
            name="text_transformer",
            description="four transformer layers that say the next character",
            input_shape=(64,),
            input_dtype="int64",
            classes=80,
            width=64,
            default_blocks=((0, 2), (3, 4), (5, 6), (7, 8)),
        ),
        BuiltIn(
            name="text_decoder",
            description="four layers of the kind of Llama that say the next character",
            input_shape=(64,),
            input_dtype="int64",
            classes=80,
            width=64,
            default_blocks=((0, 2), (3, 4), (5, 6), (7, 8)),
        ),
    )
}


def built_in(name: str) -> BuiltIn:
    """The built-in model called `name`; raises UsageError with the names there are."""
    if name not in BUILT_IN:
        raise UsageError(f"not a built-in model (there are: {', '.join(BUILT_IN)})", field="model", value=name)
    return BUILT_IN[name]


MOST = 1 << 16
"""Of channels and of classes: nobody trains more on a device, and a network of them is not even created in a minute."""


def default_dtype(model: str) -> DType:
    """What a built-in model takes; float32 for a model of the user's."""
    return BUILT_IN[model].input_dtype if model in BUILT_IN else "float32"


def create(name: str, *, width: int | None = None, classes: int = 10, input_channels: int = 3) -> nn.Module:
    """A built-in model with PyTorch's default initialisation (seed it with `torch.manual_seed`).

    `input_channels` is the first extent of an example: its channels, or the number of tokens of a text.
    """
    model = built_in(name)
    width = model.width if width is None else width
    if width < 1 or classes < 2:
        raise UsageError(
            (
                Setting("width", width),
                " ",
                Setting("classes", classes),
                ": a model needs a width of at least 1 and at least 2 classes",
            )
        )
    for field, value in (("width", width), ("classes", classes)):
        if value > MOST:
            raise UsageError(f"is more than {MOST}", field=field, value=value, remedy="give less")
    if name.startswith("resnet"):
        from edge_runtime.export.models.resnet import ResNet

        depths = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}[name]
        return ResNet(depths, width=width, classes=classes, input_channels=input_channels)
    if name.startswith("vgg"):
        from edge_runtime.export.models.vgg import VGG

        return VGG(name, width=width, classes=classes, input_channels=input_channels)
    if name == "cnn1d":
        from edge_runtime.export.models.cnn1d import Cnn1d

        return Cnn1d(width=width, classes=classes, input_channels=input_channels)
    if name == "text_transformer":
        from edge_runtime.export.models.text import TextTransformer

        return TextTransformer(width=width, classes=classes, length=input_channels)
    if name == "text_decoder":
        from edge_runtime.export.models.decoder import TextDecoder

        return TextDecoder(width=width, classes=classes, length=input_channels)
    from edge_runtime.export.models.cnn import Cnn

    return Cnn(width=width, classes=classes, input_channels=input_channels)
