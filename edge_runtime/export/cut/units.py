"""Units, blocks and the partition of a captured model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from device_profiles.errors import FormatError, UsageError
from device_profiles.model import Block, Partition
from device_profiles.settings import Setting
from edge_runtime.export.capture.capture import CapturedModel
from edge_runtime.export.capture.whose import keeps_rows, owners_in
from edge_runtime.export.cut.heads import head_starts, modules_behind, unrecognised
from edge_runtime.export.cut.layouts import Layouts
from edge_runtime.export.cut.packed import packed_head
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.view import VIEW_KINDS

_ATTACHED = frozenset({"batch_norm", "group_norm", "layer_norm", "arithmetic", "tensor"})
"""Layers whose tensors do not make a unit: they belong to what is before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLayers:
    """The layers of one unit with the activation it starts from and the one it leaves."""

    name: str
    layers: tuple[Layer, ...]
    input: str
    output: str

    @property
    def tensors(self) -> tuple[str, ...]:
        """`state_dict` names in order of use, each once."""
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.tensors if name is not None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncut:
    """Weighted layers, by the modules `first` to `last`, that stay together because several tensors live between them.

    `alive` names the modules whose results live at the point where the fewest do.
    """

    unit: int
    first: str
    last: str
    layers: int
    alive: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CutModel:
    """A captured model cut into units and the classifier head behind them."""

    units: tuple[UnitLayers, ...]
    head: UnitLayers
    shapes: dict[str, tuple[int, ...]]
    input: str
    uncut: tuple[Uncut, ...] = ()
    features_last: frozenset[str] = frozenset()
    """Boundaries of units that keep their features in their last dimension, such as tokens."""


def cut(
    model: CapturedModel,
    *,
    classes: int,
    positions: int | None = None,
    head: str | None = None,
    packed_at: int | None = None,
) -> CutModel:
    """Cut a fused model wherever exactly one tensor is alive and weights follow.

    What has no weights of its own, or only those of a normalisation, stays with the unit before it. `head` names the
    module where the classifier head begins; by default it is recognised (see `heads.py`). An example has `positions`
    rows of `classes` logits one after the other, or one. `packed_at` is the layer that a packed head begins with
    (see `packed.py`).

    Raises UsageError when there is no head, or nothing lies before it.
    """
    layers = model.layers
    alive = alive_before(model)
    batch = model.input_shape[0]
    owners = owners_in(layers, model.input_name, model.input_shape)
    points = [i for i in range(len(layers)) if len(alive[i]) == 1 and keeps_rows(owners[next(iter(alive[i]))], batch)]
    possible = list(
        head_starts(layers, batch=batch, classes=classes, positions=positions or 1, head=head, points=points)
    )
    start = _head_start(model, possible, points) if packed_at is None else packed_at
    if start is None:
        weighted = [_has_weights(layers[i : i + 1]) for i in range(len(layers))]
        proposed = _proposed(model, points)
        packed = packed_head(model, alive, owners, weighted) if head is None and proposed is None else None
        if packed is None:
            raise _no_boundary(model, possible[0], alive) if possible else unrecognised(proposed)
        return cut(packed[0], classes=classes, positions=positions, packed_at=packed[1])
    if not keeps_rows(owners[layers[-1].output], batch):
        raise UsageError("the rows of the model's output are not those of the examples, in their order")
    points = [i for i in points if i < start]
    starts = [first for first, after in itertools.pairwise([*points, start]) if _has_weights(layers[first:after])]
    bounds = [0, *starts[1:], start]
    units = []
    current = model.input_name
    for first, after in itertools.pairwise(bounds):
        part = layers[first:after]
        units.append(UnitLayers(name="", layers=part, input=current, output=part[-1].output))
        current = part[-1].output
    layouts = Layouts(layers, model.shapes)
    boundaries = {model.input_name, *(unit.output for unit in units)}
    reasons = [_uncut(model, unit, *pair, alive) for unit, pair in enumerate(itertools.pairwise(bounds))]
    return CutModel(
        units=_named(units),
        head=UnitLayers(name="head", layers=layers[start:], input=current, output=layers[-1].output),
        shapes=model.shapes,
        input=model.input_name,
        uncut=tuple(reason for reason in reasons if reason is not None),
        features_last=frozenset(name for name in boundaries if layouts.is_last(name)),
    )


def _head_start(model: CapturedModel, starts: list[int], points: list[int]) -> int | None:
    """The first of `starts` where the head can begin; None where there is none."""
    places = (_of_whole_examples(model, start, points) for start in starts)
    return next((place for place in places if place is not None), None)


def _proposed(model: CapturedModel, points: list[int]) -> str | None:
    """The last module with weights that could be named as a head; None where there is none."""
    found = (name for name, start in modules_behind(model.layers, points) if _of_whole_examples(model, start, points))
    return next(found, None)


def _of_whole_examples(model: CapturedModel, start: int, points: list[int]) -> int | None:
    """Where the head begins: at `start`, or behind or before what there takes examples apart and has no weights.

    `points` are where one tensor is alive that has a row for each example: others are no boundary of a block.
    """
    first = start
    while first not in points and first < len(model.layers) and not _has_weights(model.layers[first : first + 1]):
        first += 1
    if first in points:
        return first
    first = start
    while first not in points and first > 0 and model.layers[first - 1].kind in VIEW_KINDS:
        first -= 1
    return first if first in points and first > 0 else None


def _no_boundary(model: CapturedModel, start: int, alive: list[set[str]]) -> UsageError:
    """Why the head cannot begin at `start`."""
    place = f"the head cannot begin at '{model.layers[start].module}'"
    names = _modules(model, alive[start])
    if len(names) > 1:
        return UsageError(f"{place}: {', '.join(names)} live there as well")
    (name,) = alive[start]
    shape, batch = "x".join(map(str, model.shapes[name])), model.input_shape[0]
    return UsageError(
        f"{place}: the tensor there ({shape}) has no row for each of the {batch} examples",
        remedy=("name an earlier module with ", Setting("head")),
    )


def alive_before(model: CapturedModel) -> list[set[str]]:
    """Activations that exist before each layer, the model's input among them, and are read by it or behind it."""
    alive: list[set[str]] = []
    needed: set[str] = set()
    for layer in reversed(model.layers):
        needed = (needed - {layer.output}) | set(layer.inputs)
        alive.append(needed)
    return alive[::-1]


def _has_weights(layers: tuple[Layer, ...]) -> bool:
    return any(layer.tensors and layer.kind not in _ATTACHED for layer in layers)


def _uncut(model: CapturedModel, unit: int, first: int, after: int, alive: list[set[str]]) -> Uncut | None:
    """Why a unit of several weighted layers is not cut further; None where it has only one."""
    weighted = [i for i in range(first, after) if _has_weights(model.layers[i : i + 1])]
    if len(weighted) < 2:
        return None
    fewest = min((alive[i] for i in weighted[1:]), key=len)
    return Uncut(
        unit=unit,
        first=model.layers[weighted[0]].module,
        last=model.layers[weighted[-1]].module,
        layers=len(weighted),
        alive=_modules(model, fewest),
    )


def _modules(model: CapturedModel, names: set[str]) -> tuple[str, ...]:
    """The modules that activations come from (or the operators, of functions), in order, each with its shape."""
    known = {layer.output: layer.module or layer.output for layer in model.layers}
    order = [model.input_name, *known]
    return tuple(
        f"{known.get(name, 'input')} ({'x'.join(map(str, model.shapes[name][1:]))})"
        for name in sorted(names, key=order.index)
    )


def _named(units: list[UnitLayers]) -> tuple[UnitLayers, ...]:
    """Units named after the module that their layers with tensors share, or after the first of these layers where that
    module holds other units as well. What is still shared is numbered."""
    common = [_common_path(unit.layers) for unit in units]
    names = []
    for position, (unit, path) in enumerate(zip(units, common, strict=True)):
        others = common[:position] + common[position + 1 :]
        if not path or any(other[: len(path)] == path for other in others):
            names.append(next((layer.module for layer in unit.layers if layer.tensors and layer.module), "model"))
        else:
            names.append(".".join(path))
    numbers = [names[:position].count(name) + 1 for position, name in enumerate(names)]
    return tuple(
        replace(unit, name=name if names.count(name) == 1 else f"{name}#{number}")
        for unit, name, number in zip(units, names, numbers, strict=True)
    )


def _common_path(layers: tuple[Layer, ...]) -> list[str]:
    paths = [layer.module.split(".") for layer in layers if layer.tensors and layer.module]
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return [parts[0] for parts in same]


def parse_partition(text: str, units: int) -> Partition:
    """`0-2,3-4,5` as blocks of units; raises UsageError naming the option."""
    ranges = []
    try:
        for piece in text.split(","):
            first, _, last = piece.strip().partition("-")
            ranges.append((int(first), int(last or first)))
    except ValueError:
        raise UsageError("write unit ranges such as 0-2,3-4,5-8", field="partition", value=text) from None
    try:
        return partition_of(ranges, units)
    except FormatError as error:
        raise UsageError(
            error.message, field="partition", value=text, remedy=f"give units 0 to {units - 1} once, in order"
        ) from None


def partition_of(ranges: list[tuple[int, int]], units: int) -> Partition:
    """A checked partition from inclusive unit ranges."""
    partition = Partition(
        blocks=tuple(Block(index=i, first_unit=a, last_unit=b) for i, (a, b) in enumerate(ranges, start=1))
    )
    partition.check(units)
    return partition
