"""Stand-ins: for every block behind the active one, one layer of the block's own kind from its input to its output.

A rule looks at the shapes of one example and at where they keep their features; the first that knows the pair of shapes
makes the layers, and the last knows every pair (`rearranged.py`). One of the layers carries the stand-in's only weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_runtime.export.cut.missing import MissingBlock, Shape, StandIn
from edge_runtime.export.cut.rearranged import rearranged
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.resample import NEAREST

_KERNEL = 3
Rule = Callable[[MissingBlock], "StandIn | None"]


def stand_in(block: MissingBlock) -> StandIn:
    """The stand-in of a block."""
    for rule in RULES:
        made = rule(block)
        if made is not None:
            return made
    return rearranged(block)


def _of_images(block: MissingBlock) -> StandIn | None:
    """Images to images: a 3x3 convolution whose stride is the block's spatial reduction.

    Channels over time: the same in one dimension. What becomes a single pixel is averaged rather than cut out.
    """
    if not _has_windows(block) or any(
        after == 1 and before > _KERNEL for before, after in zip(block.before[2:], block.after[2:], strict=True)
    ):
        return None
    return _convolution(block, (_KERNEL,) * (len(block.before) - 2))


def _has_windows(block: MissingBlock) -> bool:
    """Whether the block maps images or channels over time to others of as many dimensions."""
    same = len(block.before) == len(block.after) and len(block.before) in (3, 4)
    return same and not block.last_before and not block.last_after


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
    if not _has_windows(block) or any(a < b for b, a in zip(block.before[2:], block.after[2:], strict=True)):
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


def _of_features(block: MissingBlock) -> StandIn | None:
    """Features to features, and tokens to as many tokens: a linear projection of their features."""
    tokens = block.last_before and block.last_after and block.before[1:-1] == block.after[1:-1]
    if not tokens and not len(block.before) == len(block.after) == 2:
        return None
    layers = (block.layer("linear", block.after),)
    weight_shape = (block.after[-1], block.before[-1])
    return StandIn(name=block.name, weight_shape=weight_shape, before=block.before, layers=layers)


def _to_features(block: MissingBlock) -> StandIn | None:
    """Images, sequences or tokens to features: the mean of all places, then a linear layer."""
    if len(block.after) != 2:
        return None
    batch, *places, last = block.before
    features = last if block.last_before else places[0]
    pool = Layer(
        kind="global_average_pool",
        inputs=(block.input,),
        output=f"{block.name}.mean",
        shape=(batch, features),
        module=block.name,
    )
    if block.last_before:
        kept = (batch, *(1,) * len(places), features)
        attributes = {"kept": kept, "factor": 1.0 / math.prod(places), "over_first": False}
        pool = replace(pool, kind="reduce", attributes=attributes)
    layers = (pool, block.layer("linear", block.after, start=pool.output))
    return StandIn(name=block.name, weight_shape=(block.after[1], features), before=block.before, layers=layers)


RULES: tuple[Rule, ...] = (_of_images, _enlarging, _of_features, _to_features)


def initial_bound(weight_shape: Shape) -> float:
    """Bound of the uniform distribution that a stand-in starts from (Kaiming, as it feeds no activation)."""
    return math.sqrt(3.0 / math.prod(weight_shape[1:]))
