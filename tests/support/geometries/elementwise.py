"""Random calls of what works element by element, sums over dimensions, and moves elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from edge_runtime.export.operators.activation import ACTIVATIONS
from tests.support.dropout import keep_factors
from tests.support.geometries.activations import ALL, POSITIVE, drawn
from tests.support.geometries.draw import Array, Call, Draw, double, exact, leaf, near

_EDGES = np.array([0, -0.0, 3, -3, 6, 1e-8, -1e-8, 50, -50, 88, -88], np.float32)
_OPERATIONS: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    lambda a, b: torch.where(b != 0, a, 0.0),
    lambda a, b: (a > b).double(),
    lambda a, b: (a == b).double(),
]
_OF_ZEROS = 4
"""From this operation on, elements of 0 and equal ones are of interest."""


def _with_edges(draw: Draw, shape: tuple[int, ...]) -> Array:
    x = draw.values(*shape) * np.float32(3)
    places = draw.random.random(shape) < 0.05
    x[places] = draw.random.choice(_EDGES, int(places.sum()))
    return x


def _in_domain(name: str, x: Array) -> Array:
    return np.abs(x) + np.float32(0.1) if name in POSITIVE else x


def activation(draw: Draw) -> Call:
    """Any of them."""
    name, number = drawn(draw, ALL)
    x, parameter = _in_domain(name, _with_edges(draw, draw.shape())), draw.number(0.1, 2)
    expected = ALL[name](double(x), parameter)
    return Call("activation", [x, number, parameter], [near(expected, 1 + expected.abs())])


def activation_backward(draw: Draw) -> Call:
    """At the kinks too, where PyTorch's choice counts."""
    name, number = drawn(draw, ALL)
    x, parameter = leaf(_in_domain(name, _with_edges(draw, draw.shape()))), draw.number(0.1, 2)
    gradient = draw.values(*x.shape)
    ALL[name](x, parameter).backward(double(gradient))
    assert x.grad is not None
    values = x.detach().numpy().astype(np.float32)
    result = near(x.grad, 4 * np.abs(gradient) + 2 * x.grad.abs().numpy() + 1e-6)
    return Call("activation_backward", [gradient, values, number, parameter], [result])


def gelu(draw: Draw) -> Call:
    """Both forms."""
    x, tanh = _with_edges(draw, draw.shape()), draw.chance(0.5)
    expected = functional.gelu(double(x), approximate="tanh" if tanh else "none")
    return Call("gelu", [x, tanh], [near(expected, 1 + expected.abs())])


def gelu_backward(draw: Draw) -> Call:
    """Both forms."""
    x, tanh = leaf(_with_edges(draw, draw.shape())), draw.chance(0.5)
    gradient = draw.values(*x.shape)
    functional.gelu(x, approximate="tanh" if tanh else "none").backward(double(gradient))
    assert x.grad is not None
    values = x.detach().numpy().astype(np.float32)
    return Call("gelu_backward", [gradient, values, tanh], [near(x.grad, 3 * np.abs(gradient) + 1e-6)])


def add(draw: Draw) -> Call:
    """Two tensors of one shape."""
    shape, rectified = draw.shape(), draw.chance(0.5)
    a, b = draw.values(*shape), draw.values(*shape)
    total = a + b
    return Call("add", [a, b, rectified], [exact(np.maximum(total, 0) if rectified else total)])


def _broadcast_from(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that PyTorch broadcasts to the given one."""
    kept = tuple(1 if draw.chance(0.4) else extent for extent in shape)
    return kept[draw.whole(0, len(kept) - 1) :] if draw.chance(0.3) else kept


def arithmetic(draw: Draw) -> Call:
    """Two tensors that are broadcast to each other."""
    shape = draw.shape(1, 6)
    shapes = [_broadcast_from(draw, shape), shape if draw.chance(0.5) else _broadcast_from(draw, shape)]
    left, right = shapes if draw.chance(0.5) else shapes[::-1]
    a, b, operation = draw.values(*left), draw.values(*right), draw.whole(0, len(_OPERATIONS) - 1)
    if operation < _OF_ZEROS:
        b = np.where(np.abs(b) < 0.1, np.float32(0.5), b)
    else:
        a, b = np.round(a), np.round(b)
    expected = _OPERATIONS[operation](double(a), double(b))
    return Call("arithmetic", [a, b, operation], [near(expected, expected.abs() + 1e-7, 2e-7)])


def affine(draw: Draw) -> Call:
    """Into a shape of as many elements."""
    x, factor, offset = draw.values(*draw.shape()), draw.number(-3, 3), draw.number(-3, 3)
    expected = double(x) * factor + offset
    expected = expected.reshape(-1) if draw.chance(0.2) else expected
    return Call("affine", [x, factor, offset], [near(expected, 10.0, 3e-7)])


def broadcast(draw: Draw) -> Call:
    """Repeated to a shape."""
    shape = draw.shape(1, 6)
    x, factor = draw.values(*_broadcast_from(draw, shape)), draw.number(-3, 3)
    return Call("broadcast", [x, factor], [near((double(x) * factor).expand(shape), 10.0, 2e-7)])


def sum_to(draw: Draw) -> Call:
    """Sums of products over what the result's shape lacks."""
    shape = draw.shape(1, 6)
    x, factor = draw.values(*shape), draw.number(-2, 2)
    kept = _broadcast_from(draw, shape)
    factors = draw.values(*_broadcast_from(draw, shape)) if draw.chance(0.5) else None
    products = double(x) * (1.0 if factors is None else double(factors))
    scale = products.abs().sum_to_size(kept) * abs(factor) + 1e-9
    return Call("sum_to", [x, factors, factor], [near(products.sum_to_size(kept) * factor, scale)])


def permute(draw: Draw) -> Call:
    """Any order of dimensions."""
    x = draw.values(*draw.shape(1, 7))
    order = [int(d) for d in draw.random.permutation(x.ndim)]
    return Call("permute", [x, order], [exact(np.ascontiguousarray(x.transpose(order)))])


def cat(draw: Draw) -> Call:
    """Along any dimension."""
    shape = list(draw.shape())
    dim = draw.whole(0, len(shape) - 1)
    parts = []
    for _ in range(draw.whole(1, 4)):
        shape[dim] = draw.extent(9)
        parts.append(draw.values(*shape))
    return Call("cat", [dim, *parts], [exact(np.concatenate(parts, dim))])


def crop(draw: Draw) -> Call:
    """Any window, inside or outside."""
    x, value = draw.values(*draw.shape()), draw.number(-1, 1)
    offsets = [draw.whole(-3, extent + 1) if draw.chance(0.6) else 0 for extent in x.shape]
    out = tuple(draw.whole(1, extent + 3) if draw.chance(0.6) else extent for extent in x.shape)
    expected = np.full(out, value, np.float32)
    inside = [
        (max(0, -offset), min(extent, size - offset))
        for extent, size, offset in zip(out, x.shape, offsets, strict=True)
    ]
    if all(first < last for first, last in inside):
        to = tuple(slice(first, last) for first, last in inside)
        expected[to] = x[tuple(slice(first + o, last + o) for (first, last), o in zip(inside, offsets, strict=True))]
    return Call("crop", [x, offsets, value], [exact(expected)])


def dropout(draw: Draw) -> Call:
    """By the hash of its description."""
    x, layer, probability = draw.values(*draw.shape()), draw.whole(0, 9), draw.number(0, 1)
    seed, execution = draw.whole(-(1 << 40), 1 << 40), draw.whole(0, 1 << 33)
    factors = keep_factors(x.size, seed, execution, layer, probability).reshape(x.shape)
    expected = double(x) * double(factors)
    random = np.array([seed, execution], np.int64)
    return Call("dropout", [x, random, layer, probability], [near(expected, expected.abs(), 3e-7)])


def fill(draw: Draw) -> Call:
    """One value everywhere."""
    value = draw.number(-3, 3)
    return Call("fill", [value], [exact(np.full(draw.shape(), value, np.float32))])


def is_set(draw: Draw) -> Call:
    """Whether one element is not zero."""
    x = np.where(draw.values(draw.extent(9)) > 0, np.float32(1), np.float32(0))
    place = draw.whole(0, x.size - 1)
    return Call("is_set", [x, place], [exact(np.array([x[place] != 0]), np.bool_)])


def _view(draw: Draw) -> tuple[Array, Callable[[torch.Tensor], torch.Tensor]]:
    """A tensor, and a view of it."""
    x = draw.values(*draw.shape(1, 4, 2000))
    order = [int(d) for d in draw.random.permutation(x.ndim)]
    slices = tuple(
        slice(first := draw.whole(0, extent - 1), draw.whole(first + 1, extent), draw.pick([1, 1, 2, 3]))
        for extent in (x.shape[d] for d in order)
    )
    expand = [draw.whole(1, 4) if draw.chance(0.3) else 0 for _ in order]
    front = draw.whole(2, 3) if draw.chance(0.2) else 0

    def view(tensor: torch.Tensor) -> torch.Tensor:
        seen = tensor.permute(order)[slices]
        sizes = [count if count and seen.shape[d] == 1 else -1 for d, count in enumerate(expand)]
        seen = seen.expand(sizes)
        return seen.expand(front, *seen.shape) if front else seen

    return x, view


def strided_copy(draw: Draw) -> Call:
    """A view made real."""
    x, view = _view(draw)
    seen = view(torch.from_numpy(x))
    return Call("strided_copy", [x, list(seen.stride()), seen.storage_offset()], [exact(seen.numpy().copy())])


def strided_copy_backward(draw: Draw) -> Call:
    """And its gradient, which sums over what was repeated, with that of another view."""
    x, view = _view(draw)
    seen = view(torch.from_numpy(x))
    gradient, of_x, of_sizes = draw.values(*seen.shape), leaf(x), leaf(x)
    view(of_x).backward(double(gradient))
    view(of_sizes).backward(double(abs(gradient)))
    assert of_x.grad is not None and of_sizes.grad is not None
    added = draw.values(*x.shape) if draw.chance(0.5) else None
    result = near(of_x.grad, of_sizes.grad)
    if added is not None:
        result = near(of_x.grad + double(added), of_sizes.grad + double(abs(added)))
    return Call("strided_copy_backward", [gradient, list(seen.stride()), seen.storage_offset(), added], [result])


assert set(ALL) == set(ACTIVATIONS), "every activation has a reference"
