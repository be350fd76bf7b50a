"""Elements at constant places: gathers by tables, turned and mirrored tensors, windows. One kernel copies them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import EXTERNAL_ROLES, Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import places as computed
from edge_runtime.export.operators.elementwise import as_number

_MOST_ROWS = 1 << 24
"""Up to here every whole number is a float32, as which programs carry places."""
Shape = tuple[int, ...]


def take_step(
    call: CapturedNode, x: str, shape: Shape, dims: tuple[int, int], places: torch.Tensor
) -> tuple[str, Shape]:
    """Step in front of a call: the places of `places`, counted in dimensions dims[0] to dims[1] of `x` in row-major
    order, come instead of these. Returns the step's output and its shape."""
    first, last = dims
    rows = math.prod(shape[first : last + 1])
    if rows > _MOST_ROWS:
        raise NotCovered(f"from more than {_MOST_ROWS} places")
    places = torch.where(places < 0, places + rows, places).to(torch.int64)
    result = (*shape[:first], *places.shape, *shape[last + 1 :])
    numbers = places.reshape(-1)

    def apply(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flatten(first, last).index_select(first, numbers)

    table = call.keep_constant(f"places{len(call.before)}", numbers)
    return call.step("take", (x,), result, (table,), dims=dims, apply=apply), result


def _finished(call: CapturedNode, x: str) -> Layer:
    return call.layer("reshape", (x,))


def _along(call: CapturedNode, changes: dict[int, torch.Tensor]) -> Layer:
    """Along each dimension the elements at these places of it."""
    x, shape = call.activation("self"), call.shape("self")
    for dim, places in changes.items():
        x, shape = take_step(call, x, shape, (dim, dim), places)
    return _finished(call, x)


def _constant(call: CapturedNode, value: object) -> torch.Tensor:
    found = call.constants.get(value.name) if isinstance(value, torch.fx.Node) else None
    if found is None:
        raise NotCovered("at places that are not constant")
    return found


def _capture_index(call: CapturedNode) -> Layer:
    """One tensor of places, or several for neighbouring dimensions, which are broadcast to each other."""
    shape = call.shape("self")
    if (own := computed.taken_of_examples(call, call.arguments["indices"])) is not None:
        return own
    given: list[torch.Tensor | None] = []
    for value in call.arguments["indices"]:
        places = None if value is None else _constant(call, value)
        if places is not None and places.dtype == torch.bool:
            given += list(places.nonzero(as_tuple=True))
        else:
            given.append(places)
    dims = [d for d, places in enumerate(given) if places is not None]
    first, last = dims[0], dims[-1]
    if len(dims) != last - first + 1:
        raise NotCovered("in dimensions that are no neighbours")
    at = torch.zeros((), dtype=torch.int64)
    for dim in dims:
        places = given[dim]
        assert places is not None
        at = at * shape[dim] + torch.where(places < 0, places + shape[dim], places)
    x, _ = take_step(call, call.activation("self"), shape, (first, last), at)
    return _finished(call, x)


def _capture_index_select(call: CapturedNode) -> Layer:
    dim = call.arguments["dim"] % len(call.shape("self"))
    return _along(call, {dim: _constant(call, call.arguments["index"]).reshape(-1)})


def _capture_gather(call: CapturedNode) -> Layer:
    """Of each element its own place along a dimension; the same for every example where the constant says so."""
    name = "index" if "index" in call.arguments else "indices"
    shape, dim = call.shape("self"), call.arguments["dim"]
    if dim is None:
        raise NotCovered("without a dimension")
    dim %= len(shape)
    if call.constant(name) is None:
        wanted = call.shape(name)
        if (*wanted[:dim], *wanted[dim + 1 :]) != (*shape[:dim], *shape[dim + 1 :]):
            raise NotCovered("at computed places of a part of the other dimensions")
        found = as_number(call, name)
        return computed.taken_at(call, call.activation("self"), found, dim, shape, wanted)
    index = _constant(call, call.arguments[name])
    first = 1 if dim > 0 and len(index) == shape[0] and bool((index == index[:1]).all()) else 0
    own = index[0] if first else index
    at = torch.zeros((), dtype=torch.int64)
    for d in range(first, len(shape)):
        extent = own.shape[d - first]
        count = torch.arange(extent).view(*(extent if other == d else 1 for other in range(first, len(shape))))
        at = at * shape[d] + (own if d == dim else count)
    x, _ = take_step(call, call.activation("self"), shape, (first, len(shape) - 1), at)
    return _finished(call, x)


def _capture_roll(call: CapturedNode) -> Layer:
    shape, shifts = call.shape("self"), _list(call.arguments["shifts"])
    dims = [d % len(shape) for d in _list(call.arguments["dims"])]
    if not dims:
        places = torch.arange(math.prod(shape)).roll(shifts[0])
        x, _ = take_step(call, call.activation("self"), shape, (0, len(shape) - 1), places)
        return _finished(call, x)
    return _along(call, {d: torch.arange(shape[d]).roll(s) for d, s in zip(dims, shifts, strict=True) if s % shape[d]})


def _list(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _capture_flip(call: CapturedNode) -> Layer:
    shape = call.shape("self")
    return _along(call, {d % len(shape): torch.arange(shape[d]).flip(0) for d in call.arguments["dims"]})


def _capture_repeat_interleave(call: CapturedNode) -> Layer:
    repeats, shape, dim = call.arguments["repeats"], call.shape("self"), call.arguments["dim"]
    if not isinstance(repeats, int) or dim is None:
        raise NotCovered("without a dimension, or a different number of times")
    return _along(call, {dim % len(shape): torch.arange(shape[dim]).repeat_interleave(repeats)})


def capture_mirrored(call: CapturedNode) -> Layer:
    """Padding by the tensor's own elements: `reflect`, `replicate` and `circular`."""
    mode = call.arguments.get("mode") or ("reflect" if call.operator.startswith("reflection") else "replicate")
    padding, shape = call.arguments["pad" if "pad" in call.arguments else "padding"], call.shape("self")
    changes = {}
    for position, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        dim = len(shape) - 1 - position
        places, extent = torch.arange(-before, shape[dim] + after), shape[dim]
        if mode == "replicate":
            places = places.clamp(0, extent - 1)
        elif mode == "circular":
            places = places % extent
        else:
            places = (extent - 1) - (extent - 1 - places.abs()).abs()
        if before or after:
            changes[dim] = places
    return _along(call, changes)


def _windows(call: CapturedNode, height: int, width: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Places of all elements of all windows in an image that is padded, [KH, KW, OH, OW], and the image's size."""
    steps = []
    padded = [size + 2 * pad for size, pad in zip((height, width), _list(call.arguments["padding"]), strict=True)]
    for d, extent in enumerate(padded):
        kernel, stride, dilation = (_list(call.arguments[key])[d] for key in ("kernel_size", "stride", "dilation"))
        count = (extent - dilation * (kernel - 1) - 1) // stride + 1
        steps.append((torch.arange(kernel) * dilation, torch.arange(count) * stride))
    (kh, oh), (kw, ow) = steps
    rows = kh.view(-1, 1, 1, 1) + oh.view(1, 1, -1, 1)
    columns = kw.view(1, -1, 1, 1) + ow.view(1, 1, 1, -1)
    return rows * padded[1] + columns, (padded[0], padded[1])


def _capture_windows(call: CapturedNode) -> Layer:
    """`im2col`: every window of an image as a column."""
    if len(call.shape("self")) != 4:
        raise NotCovered("without a batch dimension")
    n, c, h, w = call.shape("self")
    places, extents = _windows(call, h, w)
    x, (ph, pw) = call.activation("self"), _list(call.arguments["padding"])
    if ph or pw:
        x = call.step("crop", (x,), (n, c, *extents), offsets=(0, 0, -ph, -pw), cropped=(n, c, *extents), value=0.0)
    x, _ = take_step(call, x, (n, c, *extents), (2, 3), places)
    return _finished(call, x)


def _capture_folded(call: CapturedNode) -> Layer:
    """`col2im`: windows, each in its place of an image; they add up where they overlap."""
    if len(call.shape("self")) != 3:
        raise NotCovered("without a batch dimension")
    n, c, h, w = call.output_shape
    places, extents = _windows(call, h, w)
    numbers = places.reshape(-1)
    x = call.step("reshape", (call.activation("self"),), (n, c, len(numbers)))
    table = call.keep_constant("places", numbers)
    x = call.step("put", (x,), (n, c, math.prod(extents)), (table,))
    x = call.step("reshape", (x,), (n, c, *extents))
    offsets = (0, 0, *_list(call.arguments["padding"]))
    return call.layer("crop", (x,), offsets=offsets, cropped=call.output_shape, value=0.0)


def _capture_unfold(call: CapturedNode) -> Layer:
    """Windows along a dimension, whose elements become the last one."""
    shape, (size, step) = call.shape("self"), (call.arguments["size"], call.arguments["step"])
    dim = call.arguments["dimension"] % len(shape)
    places = torch.arange(0, shape[dim] - size + 1, step).view(-1, 1) + torch.arange(size)
    x, taken = take_step(call, call.activation("self"), shape, (dim, dim), places)
    order = [d for d in range(len(taken)) if d != dim + 1]
    return call.layer("permute", (x,), dims=(*order, dim + 1))


def _capture_strided(call: CapturedNode) -> Layer:
    """`as_strided` of dense examples, each by itself, such as overlapping windows of a sound."""
    shape, (sizes, strides) = call.shape("self"), (call.arguments["size"], call.arguments["stride"])
    inner, given = math.prod(shape[1:]), call.arguments["self"].meta["val"]
    places = torch.tensor(int(call.arguments["storage_offset"] or 0))
    for size, stride in zip(sizes[1:], strides[1:], strict=True):
        places = places.unsqueeze(-1) + torch.arange(size) * stride
    by_example = (sizes[0], strides[0]) == (shape[0], given.stride(0)) and int(places.max()) < inner
    if not by_example or not given[0].is_contiguous():
        raise NotCovered("of elements that do not lie close together in their example")
    x = call.step("reshape", (call.activation("self"),), (shape[0], inner))
    x, _ = take_step(call, x, (shape[0], inner), (1, 1), places)
    return call.layer("reshape", (x,))


def _take(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    first, last = layer.attributes["dims"]
    places = builder.weight(layer.tensors[0])
    assert places is not None
    x = values[layer.inputs[0]]
    inner = tuple(math.prod(part) for part in (x.shape[:first], x.shape[first : last + 1], x.shape[last + 1 :]))
    taken = (inner[0], math.prod(places.shape), inner[2])

    def compute(x: Value) -> Value:
        if x.root.role in EXTERNAL_ROLES:  # what the caller holds has one shape only
            source = builder.new(layer.module, inner)
            builder.graph.emit("affine", (x, 1.0, 0.0), (source,))
        else:
            source = builder.reshaped(x, inner)
        y = builder.new(layer.module, taken)
        builder.graph.emit("take", (source, places), (y,))
        return builder.reshaped(y, layer.shape)

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new(f"{layer.module}.input_gradient", inner)
        builder.graph.emit("take_backward", (builder.reshaped(gradient, taken), places), (result,))
        return [(x, builder.reshaped(result, x.shape))]

    return builder.record(builder.derived((x,), compute), rule)


def _put(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """The last dimension's elements at their places, summed up: what the gradient of a `take` does, and the reverse."""
    places = builder.weight(layer.tensors[0])
    assert places is not None
    x = values[layer.inputs[0]]
    outer = math.prod(x.shape[:-1])
    taken, whole = (outer, x.shape[-1], 1), (outer, layer.shape[-1], 1)

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, whole)
        builder.graph.emit("take_backward", (builder.reshaped(x, taken), places), (y,))
        return builder.reshaped(y, layer.shape)

    def rule(gradient: Value) -> Pairs:
        result = builder.new(f"{layer.module}.input_gradient", taken)
        builder.graph.emit("take", (builder.reshaped(gradient, whole), places), (result,))
        return [(x, builder.reshaped(result, x.shape))]

    return builder.record(builder.derived((x,), compute), rule)


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **dict.fromkeys(("index", "_unsafe_index"), _capture_index),
    "index_select": _capture_index_select,
    **dict.fromkeys(("gather", "take_along_dim"), _capture_gather),
    "roll": _capture_roll,
    "flip": _capture_flip,
    "repeat_interleave": _capture_repeat_interleave,
    **dict.fromkeys(
        ("".join(parts) for parts in itertools.product(("reflection", "replication"), ("_pad1d", "_pad2d"))),
        capture_mirrored,
    ),
    "im2col": _capture_windows,
    "col2im": _capture_folded,
    "unfold": _capture_unfold,
    "as_strided": _capture_strided,
}
EMITTERS = {"take": _take, "put": _put}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
