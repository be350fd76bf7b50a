"""Volumes [N, C, D, H, W] by what there is for images: convolutions by slices, windows one direction after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edge_runtime.export.ir.layers import CapturedNode, Layer, NotCovered
from edge_runtime.export.operators.elementwise import ADD, arithmetic, arithmetic_step
from edge_runtime.export.operators.take import take_step

Three = tuple[int, int, int]


def _three(value: int | Sequence[int]) -> Three:
    sizes = [value] if isinstance(value, int) else list(value)
    return (sizes[0], sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1], sizes[2])


def _capture_convolution(call: CapturedNode) -> Layer:
    """The sum of a convolution of images for each slice of the kernel, of all slices of all examples at once."""
    if len(call.shape("input")) != 5 or isinstance(call.arguments["padding"], str):
        raise NotCovered("without a batch dimension, or with padding by name")
    n, channels, _, h, w = call.shape("input")
    filters, inner, depth, *kernel = call.shape("weight")
    stride, padding, dilation = (_three(call.arguments[name]) for name in ("stride", "padding", "dilation"))
    result = call.output_shape
    slices, images = result[2], (n * result[2], filters, *result[3:])
    how: dict[str, Any] = {name: value[1:] for name, value in (("stride", stride), ("dilation", dilation))}
    how |= {"padding": padding[1:], "groups": int(call.arguments["groups"])}
    x, shape = _padded(call, call.activation("input"), call.shape("input"), padding[0])
    weight, total = call.activation("weight"), ""
    for k in range(depth):
        places = torch.arange(slices) * stride[0] + k * dilation[0]
        part, taken = take_step(call, x, shape, (2, 2), places)
        part = call.step("permute", (part,), tuple(taken[d] for d in (0, 2, 1, 3, 4)), dims=(0, 2, 1, 3, 4))
        part = call.step("reshape", (part,), (n * slices, channels, h, w))
        own, size = (0, 0, k, 0, 0), (filters, inner, 1, *kernel)
        slice_of = call.step("crop", (weight,), (filters, inner, *kernel), offsets=own, cropped=size, value=0.0)
        y = call.step("conv2d", (part, slice_of), images, (None, None), **how)
        total = arithmetic_step(call, ADD, total, y, images) if total else y
    turned = (n, slices, filters, *result[3:])
    y = call.step("reshape", (total,), turned)
    if call.arguments["bias"] is None:
        return call.layer("permute", (y,), dims=(0, 2, 1, 3, 4))
    y = call.step("permute", (y,), result, dims=(0, 2, 1, 3, 4))
    bias = call.step("reshape", (call.activation("bias"),), (filters, 1, 1, 1))
    return arithmetic(call, ADD, y, bias)


def _padded(call: CapturedNode, x: str, shape: tuple[int, ...], depth: int) -> tuple[str, tuple[int, ...]]:
    if depth == 0:
        return x, shape
    larger = (*shape[:2], shape[2] + 2 * depth, *shape[3:])
    return call.step("crop", (x,), larger, offsets=(0, 0, -depth, 0, 0), cropped=larger, value=0.0), larger


def _capture_pool(kind: str) -> Callable[[CapturedNode], Layer]:
    """Maxima or means over depth, then over images."""

    def capture(call: CapturedNode) -> Layer:
        if len(call.shape("self")) != 5 or call.arguments["ceil_mode"] or call.arguments.get("divisor_override"):
            raise NotCovered("without a batch dimension, with a divisor, or of windows that reach over the end")
        kernel, padding, dilation = (
            _three(call.arguments.get(name, default))
            for name, default in (("kernel_size", 1), ("padding", 0), ("dilation", 1))
        )
        stride = _three(call.arguments["stride"] or kernel)
        (n, c, d, h, w), result = call.shape("self"), call.output_shape
        x = call.step("reshape", (call.activation("self"),), (n, c, d, h * w))
        how = _window(kind, call, (kernel[0], 1), (stride[0], 1), (padding[0], 0), (dilation[0], 1))
        x = call.step(kind, (x,), (n, c, result[2], h * w), **how)
        x = call.step("reshape", (x,), (n, c * result[2], h, w))
        how = _window(kind, call, kernel[1:], stride[1:], padding[1:], dilation[1:])
        x = call.step(kind, (x,), (n, c * result[2], *result[3:]), **how)
        return call.layer("reshape", (x,))

    return capture


def _capture_adaptive(kind: str) -> Callable[[CapturedNode], Layer]:
    """To any size: windows that follow from the sizes of input and output."""

    def capture(call: CapturedNode) -> Layer:
        if len(call.shape("self")) != 5 or call.index not in (None, 0):
            raise NotCovered("without a batch dimension, or with the places of the maxima")
        (n, c, d, h, w), result = call.shape("self"), call.output_shape
        how: dict[str, Any] = {"kernel": (0, 0), "stride": (1, 1), "padding": (0, 0)}
        how |= {"count_padding": False, "divisor": 0, "dilation": (1, 1), "ceil_mode": False}
        x = call.step("reshape", (call.activation("self"),), (n, c, d, h * w))
        x = call.step(kind, (x,), (n, c, result[2], h * w), **how)
        x = call.step("reshape", (x,), (n, c * result[2], h, w))
        x = call.step(kind, (x,), (n, c * result[2], *result[3:]), **how)
        return call.layer("reshape", (x,))

    return capture


def _window(kind: str, call: CapturedNode, *sizes: tuple[int, ...]) -> dict[str, Any]:
    kernel, stride, padding, dilation = sizes
    how: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": padding}
    if kind == "max_pool2d":
        return how | {"dilation": dilation, "ceil_mode": False}
    return how | {"count_padding": bool(call.arguments["count_include_pad"]), "divisor": 0}


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {
    "conv3d": _capture_convolution,
    "max_pool3d": _capture_pool("max_pool2d"),
    "avg_pool3d": _capture_pool("average_pool2d"),
    "adaptive_max_pool3d": _capture_adaptive("max_pool2d"),
    "adaptive_avg_pool3d": _capture_adaptive("average_pool2d"),
}
EMITTERS: dict[str, Callable[..., object]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {}
