"""Whose every element of an activation is: the number of the example of the batch that it follows from.

Shapes cannot say it. The first dimension of a sequence-first tensor may be as long as the batch, and a view may take
every second example. So the numbers of the examples go through the layers themselves, as a tensor of the shape of each
activation, in which MIXED marks what follows from several examples. A BatchNorm counts as in inference, where it keeps
examples apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from edge_runtime.export.ir.layers import NOBODY, Layer

MIXED = -1
Owners = torch.Tensor | None
"""Numbers of examples, int32, of the activation's shape; None for what follows from no example."""

_ROWS = {"linear": 1, "softmax": 1, "top": 1, "put": 1}
"""Kinds that see a whole row: how many last dimensions that is."""
_WINDOWS = frozenset(
    {
        "conv2d",
        "conv_transpose2d",
        "max_pool2d",
        "average_pool2d",
        "global_average_pool",
        "group_norm",
        "resample2d",
    }
)
"""Kinds whose results follow from all of an example, whose number is the first dimension of their input."""


def of_input(shape: tuple[int, ...]) -> torch.Tensor:
    """The input's: one example a row."""
    numbers = torch.arange(shape[0], dtype=torch.int32)
    return numbers.view(-1, *(1,) * (len(shape) - 1)).expand(shape)


def owners_of(layer: Layer, known: Mapping[str, Owners], shapes: Mapping[str, tuple[int, ...]]) -> Owners:
    """The numbers of a layer's output, from those of its inputs."""
    inputs = [known[name] for name in layer.inputs]
    found = [owners for owners in inputs if owners is not None]
    if not found:
        return None
    if layer.kind == "cat":
        parts = [
            torch.full(shapes[name], NOBODY, dtype=torch.int32) if owners is None else owners
            for name, owners in zip(layer.inputs, inputs, strict=True)
        ]
        return torch.cat(parts, int(layer.attributes["dim"]))
    rule = _RULES.get(layer.kind)
    if rule is not None:
        return rule(layer, found[0])
    if layer.kind == "matmul":
        return _product(layer, inputs)
    if layer.kind == "attention":
        return _attended(layer, inputs)
    return _together(found, layer.shape)


def row_owners(owners: torch.Tensor) -> torch.Tensor | None:
    """The example that each row of the first dimension is of; None where a row is of several."""
    if owners.dim() == 0:
        return None
    rows = _over(owners, tuple(range(1, owners.dim()))).reshape(-1)
    return None if bool((rows == MIXED).any()) else rows


def keeps_rows(owners: Owners, batch: int) -> bool:
    """Whether the activation has a row for each example, in their order."""
    if owners is None or owners.shape[:1] != (batch,):
        return False
    rows = row_owners(owners)
    return rows is not None and bool((rows == torch.arange(batch, dtype=torch.int32)).all())


def is_mixed(owners: Owners) -> bool:
    """Whether an element follows from several examples."""
    return owners is not None and bool((owners == MIXED).any())


def owners_in(layers: Iterable[Layer], input_name: str, input_shape: tuple[int, ...]) -> dict[str, Owners]:
    """The numbers of every activation of a model."""
    known: dict[str, Owners] = {input_name: of_input(input_shape)}
    shapes = {input_name: input_shape}
    for layer in layers:
        shapes[layer.output] = layer.shape
        known[layer.output] = owners_of(layer, known, shapes)
    return known


def _over(owners: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """What a result over `dims`, which keep an extent of 1, follows from."""
    if not dims:
        return owners
    low = torch.where(owners == NOBODY, -2, owners)
    first, last = owners.amin(dims, keepdim=True), low.amax(dims, keepdim=True)
    return torch.where((first == last) | (last == -2), first, MIXED)


def _together(parts: list[torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    whole = parts[0].expand(shape)
    for part in parts[1:]:
        other = part.expand(shape)
        joined = torch.where((whole == other) | (other == NOBODY), whole, MIXED)
        whole = torch.where(whole == NOBODY, other, joined)
    return whole


def _rows(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    count = int(layer.attributes["dims"]) if layer.kind == "layer_norm" else _ROWS[layer.kind]
    rank = owners.dim()
    return _over(owners, tuple(range(rank - count, rank))).expand(layer.shape)


def _window(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    rows = _over(owners, tuple(range(1, owners.dim()))).reshape(-1, *(1,) * (len(layer.shape) - 1))
    return rows.expand(layer.shape)


def _reduced(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    kept = layer.attributes["kept"]
    dims = tuple(d for d, extent in enumerate(kept) if extent == 1)
    return _over(owners, dims).reshape(layer.shape)


def _run_along(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    return _over(owners, (layer.attributes["dim"],)).expand(layer.shape)


def _looked_up(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    return owners.unsqueeze(-1).expand(layer.shape)


def _cropped(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    pads = []
    for offset, after, before in zip(
        layer.attributes["offsets"], layer.attributes["cropped"], owners.shape, strict=True
    ):
        pads.append((-offset, offset + after - before))
    flat = [value for pair in reversed(pads) for value in pair]
    return torch.nn.functional.pad(owners, flat, value=NOBODY).reshape(layer.shape)


def _seen(layer: Layer, owners: torch.Tensor) -> torch.Tensor:
    base, how = owners.contiguous(), layer.attributes
    if "apply" in how:
        shown: torch.Tensor = how["apply"](base)
        return shown.reshape(layer.shape)
    return base.as_strided(how["sizes"], how["strides"], how["offset"]).reshape(layer.shape)


def _attended(layer: Layer, inputs: list[Owners]) -> torch.Tensor:
    """Every token of a head follows from all queries, keys and values of the head, wherever they lie."""
    how = layer.attributes
    batch, heads, queries, keys, width, value_width = how["sizes"]
    parts = []
    for view, source, (tokens, columns) in zip(
        how["views"], how["sources"], ((queries, width), (keys, width), (keys, value_width)), strict=True
    ):
        owners = inputs[source]
        if owners is not None:
            shape, strides = (batch, heads, tokens, columns), (*view.strides, 1)
            parts.append(_over(owners.contiguous().as_strided(shape, strides, view.offset), (2, 3)))
    out = torch.empty(layer.shape, dtype=torch.int32)
    place = how["out_view"]
    out_shape = (batch, heads, queries, value_width)
    out.as_strided(out_shape, (*place.strides, 1), place.offset).copy_(_together(parts, out_shape))
    return out


_RULES: dict[str, Callable[[Layer, torch.Tensor], torch.Tensor]] = {
    **dict.fromkeys((*_ROWS, "layer_norm"), _rows),
    **dict.fromkeys(_WINDOWS, _window),
    "reduce": _reduced,
    "running_sum": _run_along,
    "embedding": _looked_up,
    "reshape": lambda layer, owners: owners.reshape(layer.shape),
    "permute": lambda layer, owners: owners.permute(layer.attributes["dims"]),
    "crop": _cropped,
    "view": _seen,
    "take": lambda layer, owners: layer.attributes["apply"](owners).reshape(layer.shape),
}


def _product(layer: Layer, inputs: list[Owners]) -> torch.Tensor:
    a, b = inputs
    parts = []
    if a is not None:
        parts.append(_over(a, (a.dim() - 1,)))
    if b is not None:
        parts.append(_over(b, (b.dim() - 2,)))
    return _together(parts, layer.shape)
