"""Operators that move elements or only say how they are read: views, permutation, parts, padding, concatenation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from device_profiles.operators import table
from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import EXTERNAL_ROLES, Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators import take, view
from edge_runtime.export.operators.copies import Seen, copied
from edge_runtime.export.operators.view import capture_view

_MOST_PARTS = 32
"""That one call joins: ExecuTorch has a fixed room for what it notes of a call's tensors."""


def _capture_reshape(call: CapturedNode) -> Layer:
    return call.layer("reshape", (call.activation("self"),))


def _capture_permute(call: CapturedNode) -> Layer:
    rank = len(call.shape("self"))
    order = list(range(rank))
    if call.operator == "permute":
        order = [d % rank for d in call.arguments["dims"]]
    else:
        a, b = (call.arguments[name] % rank for name in ("dim0", "dim1"))
        order[a], order[b] = b, a
    return call.layer("permute", (call.activation("self"),), dims=tuple(order))


def _part(call: CapturedNode, dim: int, start: int, length: int) -> Layer:
    """`length` elements of dimension `dim` from `start` on."""
    shape = call.shape("self")
    dim %= len(shape)
    if dim == 0 and (start, length) != (0, shape[0]):
        return capture_view(call)
    offsets = tuple(start if d == dim else 0 for d in range(len(shape)))
    cropped = tuple(length if d == dim else extent for d, extent in enumerate(shape))
    return call.layer("crop", (call.activation("self"),), offsets=offsets, cropped=cropped, value=0.0)


def _capture_slice(call: CapturedNode) -> Layer:
    if call.arguments["step"] != 1:
        return capture_view(call)
    dim = call.arguments["dim"]
    extent = call.shape("self")[dim]
    start, stop, _ = slice(call.arguments["start"], call.arguments["end"]).indices(extent)
    return _part(call, dim, start, max(0, stop - start))


def _capture_select(call: CapturedNode) -> Layer:
    dim = call.arguments["dim"]
    return _part(call, dim, call.arguments["index"] % call.shape("self")[dim], 1)


def _capture_narrow(call: CapturedNode) -> Layer:
    return _part(call, call.arguments["dim"], call.arguments["start"], call.arguments["length"])


def _capture_split(call: CapturedNode) -> Layer:
    """One of the parts of `chunk`, `split` and `split_with_sizes`."""
    dim, index = call.arguments["dim"], call.index
    assert index is not None
    lengths = [shape[dim] for shape in call.part_shapes]
    return _part(call, dim, sum(lengths[:index]), lengths[index])


def _capture_pad(call: CapturedNode) -> Layer:
    if call.arguments.get("mode", "constant") != "constant":
        return take.capture_mirrored(call)
    shape, padding = call.shape("self"), call.arguments["pad"]
    offsets = [0] * len(shape)
    for position, before in enumerate(padding[::2]):  # pairs, from the last dimension on
        offsets[-1 - position] = -int(before)
    if call.output_shape[0] != shape[0] or offsets[0] != 0:
        raise NotCovered("of the batch dimension")
    value = float(call.arguments["value"] or 0.0)
    return call.layer(
        "crop", (call.activation("self"),), offsets=tuple(offsets), cropped=call.output_shape, value=value
    )


def _capture_written(call: CapturedNode) -> Layer:
    """`copy_`, `fill_` and `zero_`: a tensor or number, as large as what it is written to."""
    wanted, name = call.output_shape, "src" if call.operator == "copy" else "value"
    written = call.arguments[name] if call.operator != "zero" else 0.0
    shape = (call.shape(name) or (1,)) if isinstance(written, torch.fx.Node) else (1,)
    x = call.activation_of(written, name)
    x, _ = view.repeated(call, x, shape, lambda t: t.expand(wanted))
    return call.layer("reshape", (x,))


def _capture_cat(call: CapturedNode) -> Layer:
    dim = call.arguments["dim"] % len(call.output_shape)
    if dim == 0:
        _refuse_joined_examples(call)
    parts = call.arguments["tensors"]
    # A cache of keys begins as a tensor of no elements.
    there = [part for part in parts if not isinstance(part, torch.fx.Node) or part.meta["val"].numel() > 0]
    names = tuple(call.activation_of(part, f"tensors{place}") for place, part in enumerate(there))
    return call.layer("cat", names, dim=dim) if len(names) > 1 else call.layer("reshape", names)


def _refuse_joined_examples(call: CapturedNode) -> None:
    """Raise NotCovered where tensors are joined along the dimension of the examples."""
    for name in call.activations("tensors"):
        owners = call.owners.get(name)
        if owners is not None and owners.shape[0] > 1 and bool((owners != owners[:1]).any()):
            raise NotCovered("along the batch dimension")


def _capture_stack(call: CapturedNode) -> Layer:
    shape = call.output_shape
    dim = call.arguments["dim"] % len(shape)
    one = tuple(1 if d == dim else extent for d, extent in enumerate(shape))
    return call.layer("cat", tuple(call.step("reshape", (x,), one) for x in call.activations("tensors")), dim=dim)


def _capture_repeat(call: CapturedNode) -> Layer:
    """The same elements several times along dimensions, one whole tensor after the other."""
    shape, times = call.shape("self"), tuple(call.arguments["repeats"])
    if len(times) != len(shape) or times[0] != 1:
        raise NotCovered("of the batch dimension or with new dimensions")
    x = call.activation("self")
    for dim, count in enumerate(times):
        if count > 1:
            shape = tuple(extent * count if d == dim else extent for d, extent in enumerate(shape))
            x = call.step("cat", (x,) * count, shape, dim=dim)
    return call.layer("reshape", (x,))


def _capture_shuffle(call: CapturedNode) -> Layer:
    """Elements that change places between the channels and the image: split, permuted, joined."""
    n, c, h, w = call.shape("self")
    split: tuple[int, ...]
    order: tuple[int, ...]
    if call.operator == "channel_shuffle":
        groups = call.arguments["groups"]
        split, order = (n, groups, c // groups, h, w), (0, 2, 1, 3, 4)
    elif call.operator == "pixel_shuffle":
        r = call.arguments["upscale_factor"]
        split, order = (n, c // (r * r), r, r, h, w), (0, 1, 4, 2, 5, 3)
    else:
        r = call.arguments["downscale_factor"]
        split, order = (n, c, h // r, r, w // r, r), (0, 1, 3, 5, 2, 4)
    x = call.step("reshape", (call.activation("self"),), split)
    return call.layer("reshape", (call.step("permute", (x,), tuple(split[d] for d in order), dims=order),))


def _reshape(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    def compute(x: Value) -> Value:
        if x.root.role not in EXTERNAL_ROLES:
            return builder.reshaped(x, layer.shape)
        # What the caller holds has one shape only: the program reads it through a copy.
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("affine", (x, 1.0, 0.0), (y,))
        return y

    x = values[layer.inputs[0]]
    y = builder.derived((x,), compute)
    return builder.record(y, lambda gradient: [(x, builder.reshaped(gradient, x.shape))])


def _permute(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    dims = tuple(layer.attributes["dims"])
    back = tuple(dims.index(d) for d in range(len(dims)))

    def compute(x: Value) -> Value:
        return permuted(builder, x, dims)

    x = values[layer.inputs[0]]
    y = builder.derived((x,), compute)
    return builder.record(y, lambda gradient: [(x, permuted(builder, gradient, back))])


def permuted(builder: StepBuilder, x: Value, dims: tuple[int, ...]) -> Value:
    """Dimension d of the result is dimension dims[d] of x."""
    shape = tuple(x.shape[d] for d in dims)
    if len(shape) > table().limits["rank"]:
        strides = tuple(math.prod(x.shape[d + 1 :]) for d in dims)
        return copied(builder, x, Seen(shape, strides, 0), f"{x.name}.permuted")
    y = builder.new(f"{x.name}.permuted", shape)
    builder.graph.emit("permute", (x, dims), (y,))
    return y


def _crop(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    offsets, shape = tuple(layer.attributes["offsets"]), (layer.shape[0], *layer.attributes["cropped"][1:])

    def compute(x: Value) -> Value:
        y = cropped(builder, x, offsets, shape, float(layer.attributes["value"]))
        return y if len(shape) == len(layer.shape) else builder.reshaped(y, layer.shape)

    x = values[layer.inputs[0]]

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        whole = gradient if len(shape) == len(layer.shape) else builder.reshaped(gradient, shape)
        return [(x, cropped(builder, whole, tuple(-offset for offset in offsets), x.shape))]

    return builder.record(builder.derived((x,), compute), rule)


def cropped(
    builder: StepBuilder, x: Value, offsets: tuple[int, ...], shape: tuple[int, ...], value: float = 0.0
) -> Value:
    """Element i is x[i + offsets], or `value` where that is outside of x."""
    y = builder.new(f"{x.name}.part", shape)
    builder.graph.emit("crop", (x, offsets, value), (y,))
    return y


def _cat(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    dim = int(layer.attributes["dim"])
    parts = tuple(values[name] for name in layer.inputs)

    def joined(*parts: Value) -> Value:
        whole = sum(part.shape[dim] for part in parts)
        y = builder.new(layer.module, tuple(whole if d == dim else e for d, e in enumerate(parts[0].shape)))
        builder.graph.emit("cat", (dim, *parts), (y,))
        return y

    def compute(*parts: Value) -> Value:
        while len(parts) > _MOST_PARTS:
            groups = range(0, len(parts), _MOST_PARTS)
            some = (parts[first : first + _MOST_PARTS] for first in groups)
            parts = tuple(joined(*group) if len(group) > 1 else group[0] for group in some)
        return joined(*parts)

    def rule(gradient: Value) -> Pairs:
        pairs: Pairs = []
        start = 0
        for part in parts:
            if part in builder.differentiable:
                offsets = tuple(start if d == dim else 0 for d in range(len(layer.shape)))
                pairs.append((part, cropped(builder, gradient, offsets, part.shape)))
            start += part.shape[dim]
        return pairs

    return builder.record(builder.derived(parts, compute), rule)


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    **dict.fromkeys(
        (
            "flatten",
            "view",
            "reshape",
            "squeeze",
            "unsqueeze",
            "unflatten",
            "view_as",
            "reshape_as",
            "_unsafe_view",
        ),
        _capture_reshape,
    ),
    **dict.fromkeys(("permute", "transpose"), _capture_permute),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _capture_split),
    **dict.fromkeys(("pad", "constant_pad_nd"), _capture_pad),
    **dict.fromkeys(("expand", "expand_as", "t", "numpy_T", "movedim", "swapaxes", "unbind"), capture_view),
    "slice": _capture_slice,
    "select": _capture_select,
    "narrow": _capture_narrow,
    **dict.fromkeys(("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"), _capture_shuffle),
    "cat": _capture_cat,
    "stack": _capture_stack,
    "repeat": _capture_repeat,
    "detach": view.capture_detached,
    **dict.fromkeys(("copy", "fill", "zero"), _capture_written),
}
EMITTERS = {"reshape": _reshape, "permute": _permute, "crop": _crop, "cat": _cat, **view.EMITTERS}
IN_PLACE = view.IN_PLACE
_COPIES = {
    "pad",
    "constant_pad_nd",
    "cat",
    "stack",
    "repeat",
    "channel_shuffle",
    "pixel_shuffle",
    "pixel_unshuffle",
    "copy",
}
VIEWS = frozenset(CAPTURES) - _COPIES
"""Operators whose result shares its bytes with their argument in PyTorch."""
