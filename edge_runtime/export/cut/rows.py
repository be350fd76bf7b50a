"""Outputs with logits for every token or pixel, brought into one form: those of an example in a row, a position after
the other."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, fx

from edge_runtime.export.capture.capture import CapturedModel
from edge_runtime.export.ir.layers import Layer

_STEP = "logits.step{}"


def in_rows(model: CapturedModel, classes: int) -> tuple[CapturedModel, int | None]:
    """The model with [batch, positions x classes] behind its logits of tokens or pixels, and the number of positions;
    None, and the model as it is, where it has none of `classes` logits."""
    shape = model.layers[-1].shape
    dim = _class_dimension(shape, classes)
    if dim is None:
        return model, None
    layers, shapes = list(model.layers), dict(model.shapes)

    def add(kind: str, shape: tuple[int, ...], **attributes: object) -> None:
        name = _STEP.format(len(layers))
        layer = Layer(
            kind=kind, inputs=(layers[-1].output,), output=name, shape=shape, module="", attributes=dict(attributes)
        )
        layers.append(layer)
        shapes[name] = shape

    if dim != len(shape) - 1:
        order = _last(dim, len(shape))
        add("permute", tuple(shape[d] for d in order), dims=order)
    positions = math.prod(shape[1:]) // classes
    add("reshape", (shape[0], positions * classes))
    return replace(model, layers=tuple(layers), shapes=shapes), positions


def rows_of(logits: Tensor, classes: int) -> Tensor:
    """The same of PyTorch's own logits, which stay as they are where they are one row for each example."""
    dim = _class_dimension(tuple(logits.shape), classes)
    if dim is None:
        return logits
    return logits.permute(_last(dim, logits.dim())).flatten(1)


def append_rows(graph: fx.Graph, logits: fx.Node, shape: tuple[int, ...], classes: int) -> fx.Node:
    """The same as two calls in a graph of PyTorch's operators; `shape` is that of `logits`."""
    dim = _class_dimension(shape, classes)
    assert dim is not None  # of a model with positions
    if dim != len(shape) - 1:
        logits = graph.call_function(torch.ops.aten.permute.default, (logits, list(_last(dim, len(shape)))))
    return graph.call_function(torch.ops.aten.reshape.default, (logits, [shape[0], math.prod(shape[1:])]))


def _class_dimension(shape: tuple[int, ...], classes: int) -> int | None:
    """Tokens [batch, tokens, classes] have their classes last, images [batch, classes, ...] first; each form is also
    taken where only the other dimension has the extent."""
    if len(shape) < 3:
        return None
    usual = (len(shape) - 1, 1) if len(shape) == 3 else (1, len(shape) - 1)
    return next((dim for dim in usual if shape[dim] == classes), None)


def _last(dim: int, rank: int) -> tuple[int, ...]:
    return (*(d for d in range(rank) if d != dim), dim)
