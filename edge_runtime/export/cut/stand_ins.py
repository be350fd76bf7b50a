"""Stand-ins: for every block behind the active one, one layer of the block's own kind from its input to its output.

A rule looks at the shapes of one example and at what the block is made of; the first that knows the pair of shapes
makes the layers. One of them carries the stand-in's only weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from device_profiles.errors import UsageError
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.resample import NEAREST

Shape = tuple[int, ...]
_KERNEL = 3
_WINDOWS = frozenset({"conv2d", "conv_transpose2d", "max_pool2d", "average_pool2d", "resample2d"})
"""Kinds of layers by which channels over time differ from tokens with features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """What stands in for one block.

    Attributes:
        name: the weight's name in a bundle.
        weight_shape: shape of that weight, which is all that a stand-in has.
        before: shape of what the block starts from, with the batch.
        layers: from the activation that the block starts from to the one it leaves, by the same names.
    """

    name: str
    weight_shape: Shape
    before: Shape
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingBlock:
    """A block that is not there: what it starts from and leaves (names, and shapes with the batch), and its kinds."""

    name: str
    input: str
    output: str
    before: Shape
    after: Shape
    kinds: frozenset[str]

    def layer(self, kind: str, shape: Shape, *, start: str | None = None, **attributes: Any) -> Layer:
        """A layer that carries the stand-in's weight and leaves the block's output."""
        return Layer(
            kind=kind,
            inputs=(self.input if start is None else start,),
            output=self.output,
            shape=shape,
            module=self.name,
            tensors=(self.name, None),
            attributes=attributes,
        )


Rule = Callable[[MissingBlock], "StandIn | None"]


def stand_in(block: MissingBlock, *, index: int) -> StandIn:
    """The stand-in of block `index` (1-based); raises UsageError for one that no rule knows."""
    for rule in RULES:
        made = rule(block)
        if made is not None:
            return made
    before, after = ("x".join(map(str, shape[1:])) for shape in (block.before, block.after))
    raise UsageError(
        f"block {index} maps {before} to {after}, for which there is no stand-in",
        field="partition",
        remedy="choose other blocks",
    )


def _of_images(block: MissingBlock) -> StandIn | None:
    """Images to images: a 3x3 convolution whose stride is the block's spatial reduction."""
    if len(block.before) != 4 or len(block.after) != 4:
        return None
    return _convolution(block, (_KERNEL, _KERNEL))


def _of_sequences(block: MissingBlock) -> StandIn | None:
    """Channels over time: the same in one dimension, where the block has windows over time."""
    if len(block.before) != 3 or len(block.after) != 3 or not _WINDOWS & block.kinds:
        return None
    return _convolution(block, (_KERNEL,))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """One direction: a kernel of 3 over `extent` positions from `offset` on, padded on both sides."""

    stride: int
    padding: int
    offset: int
    extent: int


def _convolution(block: MissingBlock, kernel: Shape) -> StandIn | None:
    windows = [_window(before, after) for before, after in zip(block.before[2:], block.after[2:], strict=True)]
    found = [window for window in windows if window is not None]
    if len(found) < len(windows):
        return None
    layers: list[Layer] = []
    start, shape = block.input, (*block.before[:2], *(window.extent for window in found))
    if shape != block.before:
        start = f"{block.name}.window"
        offsets = (0, 0, *(window.offset for window in found))
        attributes = {"offsets": offsets, "cropped": shape, "value": 0.0}
        layers.append(
            Layer(
                kind="crop", inputs=(block.input,), output=start, shape=shape, module=block.name, attributes=attributes
            )
        )
    lead = 2 - len(found)  # a sequence is an image of height 1
    layers.append(
        block.layer(
            "conv2d",
            block.after,
            start=start,
            stride=(*(1,) * lead, *(window.stride for window in found)),
            padding=(*(0,) * lead, *(window.padding for window in found)),
            dilation=(1, 1),
            groups=1,
        )
    )
    weight_shape = (block.after[1], block.before[1], *kernel)
    return StandIn(name=block.name, weight_shape=weight_shape, before=block.before, layers=tuple(layers))


def _enlarging(block: MissingBlock) -> StandIn | None:
    """Images or sequences to larger ones: a convolution with a kernel of 3 at the size before, then nearest values."""
    ranks = {len(block.before), len(block.after)}
    if ranks not in ({3}, {4}) or any(a < b for b, a in zip(block.before[2:], block.after[2:], strict=True)):
        return None
    if ranks == {3} and not _WINDOWS & block.kinds:
        return None
    directions = len(block.before) - 2
    lead = 2 - directions
    middle = f"{block.name}.small"
    small = (*block.after[:2], *block.before[2:])
    convolved = block.layer(
        "conv2d",
        small,
        stride=(1, 1),
        padding=(*(0,) * lead, *(1,) * directions),
        dilation=(1, 1),
        groups=1,
    )
    steps = (*(1.0,) * lead, *(b / a for b, a in zip(block.before[2:], block.after[2:], strict=True)))
    enlarged = Layer(
        kind="resample2d",
        inputs=(middle,),
        output=block.output,
        shape=block.after,
        module=block.name,
        attributes={"mode": NEAREST, "steps": steps},
    )
    weight_shape = (block.after[1], block.before[1], *(_KERNEL,) * directions)
    layers = (replace(convolved, output=middle), enlarged)
    return StandIn(name=block.name, weight_shape=weight_shape, before=block.before, layers=layers)


def _window(before: int, after: int) -> _Window | None:
    """The stride is the reduction, the padding 1 where that gives the size, else as many positions as are needed."""
    if after > before + _KERNEL - 1:
        return None
    stride = max(1, before // after)
    for padding in (1, 0):
        if before + 2 * padding >= _KERNEL and (before + 2 * padding - _KERNEL) // stride + 1 == after:
            return _Window(stride=stride, padding=padding, offset=0, extent=before)
    extent = (after - 1) * stride + _KERNEL
    return _Window(stride=stride, padding=0, offset=(before - extent) // 2, extent=extent)


def _of_tokens(block: MissingBlock) -> StandIn | None:
    """Tokens to as many tokens: a linear projection of their width."""
    if len(block.before) != 3 or len(block.after) != 3 or block.before[1] != block.after[1]:
        return None
    weight = (block.after[2], block.before[2])
    layers = (block.layer("linear", block.after),)
    return StandIn(name=block.name, weight_shape=weight, before=block.before, layers=layers)


def _to_features(block: MissingBlock) -> StandIn | None:
    """Features to features: a linear layer. Images or sequences to features: their mean, then a linear layer."""
    if len(block.after) != 2:
        return None
    layers: list[Layer] = []
    start = block.input
    if len(block.before) > 2:
        start = f"{block.name}.mean"
        shape = block.before[:2]
        layers.append(
            Layer(kind="global_average_pool", inputs=(block.input,), output=start, shape=shape, module=block.name)
        )
    layers.append(block.layer("linear", block.after, start=start))
    weight_shape = (block.after[1], block.before[1])
    return StandIn(name=block.name, weight_shape=weight_shape, before=block.before, layers=tuple(layers))


RULES: tuple[Rule, ...] = (_of_images, _of_sequences, _enlarging, _of_tokens, _to_features)


def initial_bound(weight_shape: Shape) -> float:
    """Bound of the uniform distribution that a stand-in starts from (Kaiming, as it feeds no activation)."""
    return math.sqrt(3.0 / math.prod(weight_shape[1:]))


def kinds_of(layers: Iterable[Layer]) -> frozenset[str]:
    """The kinds of a block's layers."""
    return frozenset(layer.kind for layer in layers)
