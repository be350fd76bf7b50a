"""Copies of strided views with more dimensions than a tensor of a program has: dimensions that go on evenly are one,
and what is left is moved in several copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_profiles.operators import table
from edge_runtime.export.ir.builder import StepBuilder
from edge_runtime.export.ir.graph import Value


@dataclass(frozen=True, slots=True)
class Seen:
    """Elements of a dense tensor, by sizes, strides and an offset."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def copied(builder: StepBuilder, x: Value, seen: Seen, hint: str) -> Value:
    """A dense tensor of what `seen` shows of `x`, in the sizes of `seen`."""
    value = _flat(builder, x)
    for part in copies_of(seen):
        y = builder.new(hint, part.sizes)
        builder.graph.emit("strided_copy", (value, part.strides, part.offset), (y,))
        value = y
    return value if value.shape == seen.sizes else builder.reshaped(value, seen.sizes)


def copied_back(builder: StepBuilder, gradient: Value, seen: Seen, shape: tuple[int, ...], hint: str) -> Value:
    """The gradient of a tensor of `shape` from that of what `seen` shows of it."""
    parts = copies_of(seen)
    value = gradient if parts[-1].sizes == gradient.shape else builder.reshaped(gradient, parts[-1].sizes)
    for place in reversed(range(len(parts))):
        part = parts[place]
        before = parts[place - 1].sizes if place else _kept_or_flat(shape)
        y = builder.new(hint, before)
        builder.graph.emit("strided_copy_backward", (value, part.strides, part.offset, None), (y,))
        value = y
    return value if value.shape == shape else builder.reshaped(value, shape)


def _flat(builder: StepBuilder, x: Value) -> Value:
    shape = _kept_or_flat(x.shape)
    return x if shape == x.shape else builder.reshaped(x, shape)


def _kept_or_flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) <= table().limits["rank"] else (math.prod(shape),)


def copies_of(seen: Seen) -> list[Seen]:
    """Views of at most as many dimensions as a tensor of a program has, each of the dense copy of the one before it,
    the last of which has the elements of `seen` in its order. It is `seen` alone where none are found, as of parts of
    every dimension."""
    most = table().limits["rank"]
    if len(seen.sizes) <= most:
        return [seen]
    joined = _joined(seen)
    if len(joined.sizes) <= most:
        return [joined]
    first, rest = _split(joined, (most - 1) // 2)
    if len(first.sizes) > most or len(_joined(rest).sizes) >= len(joined.sizes):
        return [seen]
    return [first, *copies_of(rest)]


def _joined(seen: Seen) -> Seen:
    """The same elements with every dimension that goes on where the one behind it ends joined to that."""
    sizes: list[int] = []
    strides: list[int] = []
    for size, stride in zip(seen.sizes, seen.strides, strict=True):
        if size == 1:
            continue
        if sizes and strides[-1] == stride * size:
            sizes[-1] *= size
            strides[-1] = stride
        else:
            sizes.append(size)
            strides.append(stride)
    return Seen(tuple(sizes) or (1,), tuple(strides) or (1,), seen.offset)


def _split(seen: Seen, lead: int) -> tuple[Seen, Seen]:
    """`seen` with `lead` leading dimensions in front and the others in the order of their base, where those that stayed
    together go on evenly; then `seen` as a view of that, where the leading ones are a single dimension."""
    dims = [d for d, stride in enumerate(seen.strides) if stride]
    order = [*dims[:lead], *sorted(dims[lead:], key=lambda d: -seen.strides[d])]
    sizes = tuple(seen.sizes[d] for d in order)
    dense = {d: math.prod(sizes[place + 1 :]) for place, d in enumerate(order)}
    first = _joined(Seen(sizes, tuple(seen.strides[d] for d in order), seen.offset))
    return first, Seen(seen.sizes, tuple(dense.get(d, 0) for d in range(len(seen.sizes))), 0)
