"""Random inputs that a model is tried with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.elementwise import EQUAL
from edge_runtime.export.plan.block_model import BlockModel


def random_inputs(source: BlockModel, generator: torch.Generator) -> Tensor:
    """[batch, *input_shape] of the model's type.

    Tokens that the model compares with, such as those that end a text or fill it up, are once in every example: some
    models stop where an example has none, or not as many as the others.
    """
    shape = (source.batch, *source.input_shape)
    if source.input_dtype != "int64":
        return torch.randn(shape, generator=generator)
    vocabulary = source.model.vocabulary or 1
    special = [token for token in compared_tokens(source) if 0 <= token < vocabulary]
    others = torch.tensor([token for token in range(vocabulary) if token not in special] or [0])
    tokens = others[torch.randint(0, len(others), shape, generator=generator)]
    rows = tokens.view(source.batch, -1)
    if len(special) <= rows.shape[1]:
        for row in rows:
            row[torch.randperm(len(row), generator=generator)[: len(special)]] = torch.tensor(special, dtype=row.dtype)
    return tokens


def compared_tokens(source: BlockModel) -> list[int]:
    """The single numbers that the model compares its tokens with."""
    layers = [layer for unit in (*source.cut.units, source.cut.head) for layer in unit.layers]
    numbers = {layer.output for layer in layers if layer.kind == "to_float"}
    values = {layer.output: _value(source, layer) for layer in layers if layer.kind == "tensor"}
    found: set[int] = set()
    for layer in layers:
        if (
            layer.kind == "arithmetic"
            and layer.attributes["operation"] == EQUAL
            and not numbers.isdisjoint(layer.inputs)
        ):
            found.update(value for name in layer.inputs if (value := values.get(name)) is not None)
    return sorted(found)


def _value(source: BlockModel, layer: Layer) -> int | None:
    """What a whole number is that is a constant of one element; None for any other tensor."""
    tensor = source.constants.get(layer.tensors[0] or "")
    number = float(tensor) if tensor is not None and tensor.numel() == 1 else math.inf
    return int(number) if number.is_integer() else None
