"""The stand-in between any two shapes: a linear layer of the features, with what lies around it brought into place.

Both sides are seen as features at places of a grid. Places become fewer by their means, before the linear layer, and
more by their nearest neighbours, behind it. Tokens whose number is that of a grid and one or two more have class tokens
in front: these start from the mean of all places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from edge_runtime.export.cut.missing import MissingBlock, Shape, StandIn
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.resample import NEAREST

_MOST_EXTRA = 2
"""Class and distillation token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """One side of a block: features at places, first or last, and what of the places is a grid."""

    features: int
    places: Shape
    last: bool

    @classmethod
    def of(cls, shape: Shape, *, last: bool) -> _Side:
        if len(shape) == 2:
            return cls(features=shape[1], places=(), last=False)
        places = shape[1:-1] if last else shape[2:]
        return cls(features=shape[-1] if last else shape[1], places=places, last=last)


def rearranged(block: MissingBlock) -> StandIn:
    """The stand-in of a block that no other rule knows."""
    before = _Side.of(block.before, last=block.last_before)
    after = _Side.of(block.after, last=block.last_after)
    grid, wanted = _grids(before.places, after.places)
    small = tuple(min(pair) for pair in zip(grid, wanted, strict=True))
    steps = _Steps(block=block)
    steps.to_first(before, grid)
    if small != grid:
        steps.pool(small)
    steps.to_tokens(math.prod(small))
    steps.linear(after.features)
    if wanted != small:
        steps.to_image(small)
        steps.enlarge(wanted)
        steps.to_tokens(math.prod(wanted))
    extra = math.prod(after.places) - math.prod(wanted)
    if extra > 0:
        steps.prepend_means(extra)
    steps.to_side(after, block.after)
    weight_shape = (after.features, before.features)
    return StandIn(name=block.name, weight_shape=weight_shape, before=block.before, layers=steps.finished())


def _grids(before: Shape, after: Shape) -> tuple[Shape, Shape]:
    """Grids of as many directions, at most two, for the places before and after, without class tokens."""
    if math.prod(before) == 1 or math.prod(after) == 1:
        return _whole(before), _whole(after)
    if len(before) == len(after) == 2:
        return before, after
    if len(before) == 2 and len(after) == 1:
        found = _of_aspect(after[0], before)
        if found is not None:
            return before, found
    if len(before) == 1 and len(after) == 2:
        found = _of_aspect(before[0], after)
        if found is not None:
            return found, after
    if len(before) == len(after) == 1 and before != after:
        squares = [_of_aspect(count, (1, 1)) for count in (before[0], after[0])]
        if squares[0] is not None and squares[1] is not None:
            return squares[0], squares[1]
    return (1, math.prod(before)), (1, math.prod(after))


def _whole(places: Shape) -> Shape:
    return places if len(places) == 2 else (1, math.prod(places))


def _of_aspect(count: int, like: Shape) -> Shape | None:
    """The grid with the aspect of `like` that `count` tokens are, but for class tokens; None where there is none."""
    divisor = math.gcd(*like)
    unit = (like[0] // divisor, like[1] // divisor)
    for extra in range(_MOST_EXTRA + 1):
        scale = math.isqrt(max(0, count - extra) // math.prod(unit))
        if scale > 0 and scale * scale * math.prod(unit) + extra == count:
            return (scale * unit[0], scale * unit[1])
    return None


@dataclass(slots=True)
class _Steps:
    """The layers so far; `shape` is that of the last one's output."""

    block: MissingBlock
    layers: list[Layer] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        return self.layers[-1].shape if self.layers else self.block.before

    @property
    def _at(self) -> str:
        return self.layers[-1].output if self.layers else self.block.input

    def _add(
        self, kind: str, shape: Shape, *, inputs: tuple[str, ...] = (), weighs: bool = False, **attributes: Any
    ) -> None:
        block = self.block
        self.layers.append(
            Layer(
                kind=kind,
                inputs=inputs or (self._at,),
                output=f"{block.name}.step{len(self.layers)}",
                shape=shape,
                module=block.name,
                tensors=(block.name, None) if weighs else (),
                attributes=attributes,
            )
        )

    def finished(self) -> tuple[Layer, ...]:
        """All of them; the last leaves the block's output."""
        return (*self.layers[:-1], replace(self.layers[-1], output=self.block.output))

    def reshape(self, shape: Shape) -> None:
        """To `shape`, unless it is that already."""
        if shape != self.shape:
            self._add("reshape", shape)

    def _permute(self, dims: tuple[int, ...]) -> None:
        shape = tuple(self.shape[d] for d in dims)
        if 1 in shape[1:]:  # the same order of elements
            self.reshape(shape)
        else:
            self._add("permute", shape, dims=dims)

    def to_first(self, side: _Side, grid: Shape) -> None:
        """[batch, features, *grid], from a side with the places of the grid and class tokens in front."""
        batch, places, count = self.shape[0], math.prod(side.places), math.prod(grid)
        dim = 1 if side.last else 2
        self.reshape((batch, places, side.features) if side.last else (batch, side.features, places))
        if count < places:
            shape = tuple(count if d == dim else extent for d, extent in enumerate(self.shape))
            offsets = tuple(places - count if d == dim else 0 for d in range(3))
            self._add("crop", shape, offsets=offsets, cropped=shape, value=0.0)
        if side.last:
            self._permute((0, 2, 1))
        self.reshape((batch, side.features, *grid))

    def to_tokens(self, count: int) -> None:
        """[batch, places, features]."""
        batch, features = self.shape[:2]
        self.reshape((batch, features, count))
        self._permute((0, 2, 1))

    def to_image(self, grid: Shape) -> None:
        """[batch, features, *grid], from tokens."""
        batch, _, features = self.shape
        self._permute((0, 2, 1))
        self.reshape((batch, features, *grid))

    def pool(self, grid: Shape) -> None:
        """Means of the places that each of fewer places stands for."""
        shape = (*self.shape[:2], *grid)
        window: dict[str, Any] = {"kernel": (0, 0), "stride": (1, 1), "padding": (0, 0)}
        self._add("average_pool2d", shape, **window, count_padding=False, divisor=0)

    def enlarge(self, grid: Shape) -> None:
        """The nearest of the places there are."""
        steps = tuple(before / after for before, after in zip(self.shape[2:], grid, strict=True))
        self._add("resample2d", (*self.shape[:2], *grid), mode=NEAREST, steps=steps)

    def linear(self, features: int) -> None:
        """The layer with the weight."""
        self._add("linear", (*self.shape[:2], features), weighs=True)

    def prepend_means(self, count: int) -> None:
        """Tokens in front of the others, each the mean of these."""
        batch, places, features = self.shape
        tokens, mean = self._at, (batch, 1, features)
        self._add("reduce", mean, kept=mean, factor=1.0 / places, over_first=False)
        self._add("cat", (batch, count + places, features), inputs=(*(self._at,) * count, tokens), dim=1)

    def to_side(self, side: _Side, shape: Shape) -> None:
        """`shape`, from tokens."""
        if not side.last:
            self._permute((0, 2, 1))
        self.reshape(shape)
