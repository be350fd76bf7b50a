"""Views in general, by sizes, strides and an offset, and tensors of the model that are read as activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Pairs, Value
from edge_runtime.export.ir.layers import CapturedNode, Layer
from edge_runtime.export.operators.copies import Seen, copied, copied_back

VIEW_KINDS = frozenset({"reshape", "permute", "crop", "view"})
"""Layers that may be nothing but another way to read their input."""


def capture_view(call: CapturedNode) -> Layer:
    """Any operator whose result shares its argument's bytes: PyTorch itself says where the elements lie."""
    called = call.node if call.index is None else call.node.args[0]
    assert isinstance(called, torch.fx.Node)

    def apply(x: torch.Tensor) -> torch.Tensor:
        arguments = [
            argument.meta["val"] if isinstance(argument, torch.fx.Node) else argument for argument in called.args[1:]
        ]
        seen = called.target(x, *arguments, **called.kwargs)  # type: ignore[operator]  # an operator
        return seen if call.index is None else seen[call.index]  # type: ignore[no-any-return]  # torch ships no types here

    return _view_layer(call, "self", apply)


def strided_view(
    call: CapturedNode, argument: str, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Layer:
    """A view of an argument with the strides it has when it is dense."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        assert x.is_contiguous()  # a tensor of the model is
        return x.as_strided(sizes, strides, x.storage_offset() + offset)

    return _view_layer(call, argument, apply)


def _view_layer(call: CapturedNode, argument: str, apply: Callable[[torch.Tensor], torch.Tensor]) -> Layer:
    attributes = _attributes(call.shape(argument), apply)
    kind = "view" if attributes else "reshape"
    return call.layer(kind, (call.activation(argument),), **attributes)


def repeated(
    call: CapturedNode, x: str, shape: tuple[int, ...], apply: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[str, tuple[int, ...]]:
    """Step to what `apply` shows of the activation `x` of `shape`, such as `expand`; and its shape."""
    attributes, result = _attributes(shape, apply), tuple(apply(torch.empty(shape, device="meta")).shape)
    return call.step("view" if attributes else "reshape", (x,), result, **attributes), result


def _attributes(shape: tuple[int, ...], apply: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """Of the layer that shows what `apply` makes of a tensor of `shape`; none where all that changes is the shape."""
    seen = apply(torch.empty(shape, device="meta"))
    if seen.is_contiguous() and seen.numel() == math.prod(shape):
        return {}
    return {
        "sizes": tuple(seen.shape),
        "strides": tuple(seen.stride()),
        "offset": seen.storage_offset(),
        "by_example": views_by_example(seen, tuple(seen.shape), shape),
        "apply": apply,
    }


def views_by_example(view: torch.Tensor, shape: tuple[int, ...], base: tuple[int, ...]) -> bool:
    """Whether the first dimension of a view of `shape` is the base's first one, or repeats the base."""
    if len(view.shape) == 0 or view.shape[:1] != shape[:1]:
        return False
    return view.stride(0) == 0 or (view.shape[0] == base[0] and view.stride(0) == math.prod(base[1:]))


def seen_through(layer: Layer, x: torch.Tensor) -> torch.Tensor | None:
    """What a layer of VIEW_KINDS shows of the tensor `x`; None where that is not a view of it."""
    if layer.kind == "view":
        seen: torch.Tensor = layer.attributes["apply"](x)
        return seen
    if layer.kind == "crop":
        offsets, sizes = layer.attributes["offsets"], layer.attributes["cropped"]
        if any(o < 0 or o + size > extent for o, size, extent in zip(offsets, sizes, x.shape, strict=True)):
            return None
        x = x[tuple(slice(o, o + size) for o, size in zip(offsets, sizes, strict=True))]
    try:
        return x.view(layer.shape)
    except RuntimeError:
        return None


def _view(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    attributes = layer.attributes
    sizes = tuple(attributes["sizes"])
    if attributes["by_example"]:
        sizes = (layer.shape[0], *sizes[1:])
    seen = Seen(sizes, tuple(attributes["strides"]), int(attributes["offset"]))
    x = values[layer.inputs[0]]

    def compute(x: Value) -> Value:
        y = copied(builder, x, seen, layer.module)
        return y if sizes == layer.shape else builder.reshaped(y, layer.shape)

    def rule(gradient: Value) -> Pairs:
        if x not in builder.differentiable:
            return []
        whole = gradient if sizes == layer.shape else builder.reshaped(gradient, sizes)
        return [(x, copied_back(builder, whole, seen, x.shape, f"{layer.module}.input_gradient"))]

    return builder.record(builder.derived((x,), compute), rule)


def _tensor(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """A tensor of the model as an activation: a parameter, whose gradient is the activation's, or a buffer."""
    (name,) = layer.tensors
    assert name is not None
    parameter = builder.weight(name)
    assert parameter is not None
    if not builder.trains(parameter):
        return parameter

    def rule(gradient: Value) -> Pairs:
        builder.update(parameter, gradient)
        return []

    return builder.record(builder.reshaped(parameter, parameter.shape), rule)


def capture_detached(call: CapturedNode) -> Layer:
    """The same elements, through which no gradient goes."""
    return call.layer("detached", (call.activation("self"),))


def _detached(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """Not on the tape, so that no gradient is asked of what is before it."""

    def compute(x: Value) -> Value:
        y = builder.new(layer.module, layer.shape)
        builder.graph.emit("affine", (x, 1.0, 0.0), (y,))
        return y

    return builder.derived((values[layer.inputs[0]],), compute)


IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"strided_copy_backward": ((0, 3),)}
"""Gradients of many views of one tensor, such as the steps of a recurrence, are added up where they lie."""
EMITTERS = {"view": _view, "tensor": _tensor, "detached": _detached}
