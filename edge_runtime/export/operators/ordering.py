"""The largest elements along a dimension, and sums that run along one."""

from __future__ import annotations

import math
from collections.abc import Callable

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import EXTERNAL_ROLES, Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import places

_MOST_SORTED = 65536
"""Elements of a row that fit a thread's workspace with their places."""
Shape = tuple[int, ...]


def _top(call: CapturedNode, dims: tuple[int, ...], count: int, *, shared: bool, smallest: bool) -> tuple[str, Shape]:
    """Steps to the `count` largest or smallest elements over `dims`, in order: [kept dimensions..., count].

    `shared`: equal ones share the gradient; else the first of them takes it.
    """
    shape, x = call.shape("self"), call.activation("self")
    kept = tuple(d for d in range(len(shape)) if d not in dims)
    order, length = (*kept, *dims), math.prod(shape[d] for d in dims)
    outer = tuple(shape[d] for d in kept)
    if count > 1 and length > _MOST_SORTED:
        raise NotCovered(f"of more than {_MOST_SORTED} elements")
    if smallest:
        x = call.step("affine", (x,), shape, factor=-1.0, offset=0.0)
    if order != tuple(range(len(shape))):
        x = call.step("permute", (x,), tuple(shape[d] for d in order), dims=order)
    x = call.step("reshape", (x,), (*outer, length))
    x = call.step("top", (x,), (*outer, count), shared=shared)
    if smallest:
        x = call.step("affine", (x,), (*outer, count), factor=-1.0, offset=0.0)
    return x, (*outer, count)


def _dims(call: CapturedNode) -> tuple[int, ...]:
    shape, given = call.shape("self"), call.arguments.get("dim")
    if given is None or given == []:
        given = range(len(shape))
    dims = tuple(sorted(d % len(shape) for d in ([given] if isinstance(given, int) else given)))
    if call.over_examples("self", dims):
        raise NotCovered("over the batch")
    return dims


def _refuse_places(call: CapturedNode) -> None:
    if call.index not in (None, 0):
        raise NotCovered("with the places of the elements, which take no gradient")


def _capture_extreme(*, shared: bool, smallest: bool) -> Callable[[CapturedNode], Layer]:
    """`amax`, `amin`, and the values of `max` and `min`."""

    def capture(call: CapturedNode) -> Layer:
        if call.index == 1:
            return places.argument_of_extreme(call, _dims(call), smallest=smallest)
        x, _ = _top(call, _dims(call), 1, shared=shared, smallest=smallest)
        return call.layer("reshape", (x,))

    return capture


def _along(call: CapturedNode, count: int, *, smallest: bool, part: slice) -> Layer:
    """Some of the first `count` elements along a dimension, in place of it."""
    _refuse_places(call)
    (dim,) = _dims(call)
    x, shape = _top(call, (dim,), count, shared=False, smallest=smallest)
    first, last, _ = part.indices(count)
    if (first, last) != (0, count):
        shape = (*shape[:-1], last - first)
        offsets = (*(0,) * (len(shape) - 1), first)
        x = call.step("crop", (x,), shape, offsets=offsets, cropped=shape, value=0.0)
    if len(call.output_shape) < len(shape):
        return call.layer("reshape", (x,))
    order = [*range(dim), len(shape) - 1, *range(dim, len(shape) - 1)]
    return call.layer("permute", (x,), dims=tuple(order))


def _capture_topk(call: CapturedNode) -> Layer:
    return _along(call, int(call.arguments["k"]), smallest=not call.arguments["largest"], part=slice(None))


def _capture_sort(call: CapturedNode) -> Layer:
    count = call.shape("self")[call.arguments["dim"]]
    return _along(call, count, smallest=not call.arguments["descending"], part=slice(None))


def _capture_kth(call: CapturedNode) -> Layer:
    count = int(call.arguments["k"])
    return _along(call, count, smallest=True, part=slice(count - 1, None))


def _capture_median(call: CapturedNode) -> Layer:
    if call.arguments.get("dim") is None:
        raise NotCovered("over all dimensions")
    count = (call.shape("self")[call.arguments["dim"]] - 1) // 2 + 1
    return _along(call, count, smallest=True, part=slice(count - 1, None))


def _capture_running_sum(call: CapturedNode) -> Layer:
    (dim,) = _dims(call)
    return call.layer("running_sum", (call.activation("self"),), dim=dim)


def _folded(builder: StepBuilder, x: Value, shape: Shape, hint: str) -> Value:
    """`x` in another shape; through a copy, where it is the caller's, who holds it in one shape only."""
    if x.root.role not in EXTERNAL_ROLES:
        return builder.reshaped(x, shape)
    y = builder.new(hint, shape)
    builder.graph.emit("affine", (x, 1.0, 0.0), (y,))
    return y


def _emit_top(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x, count = values[layer.inputs[0]], layer.shape[-1]
    length = x.shape[-1]
    rows = (math.prod(x.shape[:-1]), length)
    results = (rows[0], count)

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, results)
        builder.graph.emit("top", (_folded(builder, x, rows, layer.module),), (y,))
        return builder.reshaped(y, layer.shape)

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        result = builder.new(f"{layer.module}.input_gradient", rows)
        source = _folded(builder, builder.again(x), rows, layer.module)
        shared = bool(layer.attributes["shared"])
        builder.graph.emit("top_backward", (builder.reshaped(gradient, results), source, shared), (result,))
        return [(x, builder.reshaped(result, x.shape))]

    return builder.record(builder.kept(layer.output, (x,), compute), rule)


def _emit_running_sum(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    x, dim = values[layer.inputs[0]], int(layer.attributes["dim"])
    folded = (math.prod(layer.shape[:dim]), layer.shape[dim], math.prod(layer.shape[dim + 1 :]))

    def along(x: Value, hint: str, *, backwards: bool) -> Value:
        y = builder.new(hint, folded)
        builder.graph.emit("running_sum", (_folded(builder, x, folded, hint), backwards), (y,))
        return builder.reshaped(y, layer.shape)

    def rule(gradient: Value) -> Pairs:
        return [(x, along(gradient, f"{layer.module}.input_gradient", backwards=True))]

    y = builder.derived((x,), lambda x: along(x, layer.module, backwards=False))
    return builder.record(y, rule)


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    "amax": _capture_extreme(shared=True, smallest=False),
    "amin": _capture_extreme(shared=True, smallest=True),
    "max": _capture_extreme(shared=False, smallest=False),
    "min": _capture_extreme(shared=False, smallest=True),
    "topk": _capture_topk,
    **dict.fromkeys(("sort", "msort"), _capture_sort),
    "kthvalue": _capture_kth,
    "median": _capture_median,
    "cumsum": _capture_running_sum,
}
EMITTERS = {"top": _emit_top, "running_sum": _emit_running_sum}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"running_sum": ((0, 0),)}
