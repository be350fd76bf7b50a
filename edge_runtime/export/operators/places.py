"""Places that the model itself computes: the largest of a row, what lies there, and running products.

A place is a whole number in a float32, and no gradient goes through it. What lies at one is the sum of a row with all
else left out: it has the gradient of the element that was taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from edge_runtime.export.ir.formula import Formula, applied, operand
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import (
    EQUAL,
    MULTIPLY,
    SELECT,
    arithmetic,
    arithmetic_step,
    as_number,
    as_number_of,
)

_MOST_PLACES = 1 << 24
"""Up to here every whole number is a float32."""
Shape = tuple[int, ...]


def argument_of_extreme(call: CapturedNode, dims: tuple[int, ...], *, smallest: bool) -> Layer:
    """The place of the first largest or smallest element over `dims`, counted in their order.

    Of the elements that are as large, the one whose distance from the end is largest.
    """
    shape, x = call.shape("self"), as_number(call, "self")
    kept = tuple(d for d in range(len(shape)) if d not in dims)
    outer, length = tuple(shape[d] for d in kept), math.prod(shape[d] for d in dims)
    _refuse_length(length)
    rows = (*outer, length)
    if smallest:
        x = call.step("affine", (x,), shape, factor=-1.0, offset=0.0)
    if (*kept, *dims) != tuple(range(len(shape))):
        x = call.step("permute", (x,), tuple(shape[d] for d in (*kept, *dims)), dims=(*kept, *dims))
    x = call.step("reshape", (x,), rows)
    largest = call.step("top", (x,), (*outer, 1), shared=False)
    there = arithmetic_step(call, EQUAL, x, largest, rows)
    from_end = call.kept("from_end", torch.arange(length, 0, -1, dtype=torch.float32))
    distances = arithmetic_step(call, MULTIPLY, there, from_end, rows)
    first = call.step("top", (distances,), (*outer, 1), shared=False)
    place = call.step("affine", (first,), (*outer, 1), factor=-1.0, offset=float(length))
    return call.layer("reshape", (place,))


def _capture_argument(*, smallest: bool) -> Callable[[CapturedNode], Layer]:
    def capture(call: CapturedNode) -> Layer:
        shape, dim = call.shape("self"), call.arguments.get("dim")
        dims = tuple(range(len(shape))) if dim is None else (dim % len(shape),)
        if call.over_examples("self", dims):
            raise NotCovered("over the batch")
        return argument_of_extreme(call, dims, smallest=smallest)

    return capture


def _capture_one_hot(call: CapturedNode) -> Layer:
    classes = int(call.arguments.get("num_classes", -1))
    if classes < 1:
        raise NotCovered("without num_classes")
    column = call.step("reshape", (as_number(call, "self"),), (*call.shape("self"), 1))
    return arithmetic(call, EQUAL, column, call.kept("classes", torch.arange(classes, dtype=torch.float32)))


def taken_at(call: CapturedNode, x: str, places: str, dim: int, shape: Shape, wanted: Shape) -> Layer:
    """The elements at `places` along dimension `dim` of `x`, which is of `shape`.

    `places` [..., K, ...] is of the shape `wanted`: K places along `dim`, and around them x's extents, or 1 for all.
    """
    length, before, behind = shape[dim], wanted[:dim], wanted[dim + 1 :]
    _refuse_length(length)
    rows = (*shape[:dim], wanted[dim], *shape[dim:])
    source = call.step("reshape", (x,), (*shape[:dim], 1, *shape[dim:]))
    asked = call.step("reshape", (places,), (*before, wanted[dim], 1, *behind))
    numbers = torch.arange(length, dtype=torch.float32).view(length, *(1,) * len(behind))
    chosen = arithmetic_step(call, EQUAL, asked, call.kept("numbers", numbers), (*before, wanted[dim], length, *behind))
    part = arithmetic_step(call, SELECT, source, chosen, rows)
    kept = (*rows[: dim + 1], 1, *rows[dim + 2 :])
    return call.layer("reduce", (part,), kept=kept, factor=1.0, over_first=False)


def taken_of_examples(call: CapturedNode, given: list[object]) -> Layer | None:
    """`x[torch.arange(len(x)), places]`, one place of each example; None for any other index."""
    if len(given) != 2 or not all(isinstance(value, torch.fx.Node) for value in given):
        return None
    rows, places = given
    assert isinstance(rows, torch.fx.Node) and isinstance(places, torch.fx.Node)
    shape, numbers = call.shape("self"), call.constants.get(rows.name)
    batch = (shape[0],)
    if numbers is None or tuple(numbers.shape) != batch or tuple(places.meta["val"].shape) != batch:
        return None
    if places.meta["val"].dtype == torch.bool or not torch.equal(numbers, torch.arange(shape[0])):
        return None
    found = call.step("expression", (as_number_of(call, places, "indices"),), batch, formula=_from_start(shape[1]))
    found = call.step("reshape", (found,), (shape[0], *(1,) * (len(shape) - 1)))
    return taken_at(call, call.activation("self"), found, 1, shape, (shape[0], *(1,) * (len(shape) - 1)))


def _from_start(length: int) -> Formula:
    """Places counted from the end, which are below 0, from the start."""
    place = operand(0)
    return applied("choose", applied("greater", 0.0, place), place + float(length), place)


def _capture_product(call: CapturedNode) -> Layer:
    """`cumprod`: in each pass every element is multiplied by the product of as many before it as it holds itself."""
    shape, x = call.shape("self"), call.activation("self")
    dim = call.arguments["dim"] % len(shape)
    if call.over_examples("self", (dim,)):
        raise NotCovered("over the batch")
    reach = 1
    while reach < shape[dim]:
        offsets = tuple(-reach if d == dim else 0 for d in range(len(shape)))
        earlier = call.step("crop", (x,), shape, offsets=offsets, cropped=shape, value=1.0)
        x = arithmetic_step(call, MULTIPLY, x, earlier, shape)
        reach *= 2
    return call.layer("reshape", (x,))


def _refuse_length(length: int) -> None:
    if length > _MOST_PLACES:
        raise NotCovered(f"of more than {_MOST_PLACES} places")


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    "argmax": _capture_argument(smallest=False),
    "argmin": _capture_argument(smallest=True),
    "one_hot": _capture_one_hot,
    "cumprod": _capture_product,
}
EMITTERS: dict[str, Callable[..., object]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
