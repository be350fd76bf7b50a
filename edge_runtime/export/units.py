"""Units, blocks and the partition of a captured model."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from device_profiles.errors import UsageError
from device_profiles.model import Block, Partition
from edge_runtime.export.capture import CapturedModel
from edge_runtime.export.layers import Layer

_HEAD_KINDS = frozenset({"global_average_pool", "reshape", "linear"})


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLayers:
    """The layers of one unit with the activation it starts from and the one it leaves."""

    name: str
    layers: tuple[Layer, ...]
    input: str
    output: str

    @property
    def tensors(self) -> tuple[str, ...]:
        """`state_dict` names in order of use."""
        return tuple(name for layer in self.layers for name in layer.tensors if name is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutModel:
    """A captured model cut into units and the classifier head behind them (pooling + linear)."""

    units: tuple[UnitLayers, ...]
    head: UnitLayers
    shapes: dict[str, tuple[int, ...]]
    input: str


def cut(model: CapturedModel) -> CutModel:
    """Cut a fused model before every convolution or linear layer where exactly one tensor is alive.

    Raises UsageError when the tail is not a classifier head, or nothing lies before it.
    """
    layers = list(model.layers)
    start = _head_start(layers)
    starts = [i for i in range(start) if layers[i].kind in ("conv2d", "linear") and _single_alive(layers, i)]
    if not starts or starts[0] != 0:
        starts = [0, *[s for s in starts if s > 0]]
    bounds = [*starts, start]
    units = []
    current = model.input_name
    for first, after in itertools.pairwise(bounds):
        part = tuple(layers[first:after])
        units.append(UnitLayers(name=_unit_name(part), layers=part, input=current, output=part[-1].output))
        current = part[-1].output
    head = UnitLayers(name="head", layers=tuple(layers[start:]), input=current, output=layers[-1].output)
    return CutModel(units=tuple(units), head=head, shapes=model.shapes, input=model.input_name)


def _head_start(layers: list[Layer]) -> int:
    """Index of the first layer of the head: global pooling, reshapes and exactly one linear layer."""
    start = len(layers)
    while start > 0 and layers[start - 1].kind in _HEAD_KINDS:
        start -= 1
    tail = [layer.kind for layer in layers[start:]]
    if tail.count("linear") != 1 or tail[-1] != "linear" or start == 0:
        raise UsageError("the model does not end with a classifier head (global average pooling and one linear layer)")
    return start


def _single_alive(layers: list[Layer], position: int) -> bool:
    """Whether exactly one activation computed before `position` is read at or behind it."""
    before = {layer.output for layer in layers[:position]}
    if position == 0:
        return True
    read_later = {name for layer in layers[position:] for name in layer.inputs}
    produced_later = {layer.output for layer in layers[position:]}
    return len(read_later - produced_later) == 1 and len(read_later & before) == 1


def _unit_name(layers: tuple[Layer, ...]) -> str:
    """The longest module path common to the unit's weighted layers, or its first one's."""
    paths = [layer.module.split(".") for layer in layers if layer.tensors]
    common = paths[0]
    for path in paths[1:]:
        length = next((i for i, (a, b) in enumerate(zip(common, path, strict=False)) if a != b), None)
        common = common[: length if length is not None else min(len(common), len(path))]
    return ".".join(common) if len(common) > 0 and common != ["features"] else ".".join(paths[0])


def even_partition(unit_bytes: list[int], blocks: int) -> Partition:
    """`blocks` runs of consecutive units with about the same number of units."""
    count = len(unit_bytes)
    if not 1 <= blocks <= count:
        raise UsageError(f"--blocks {blocks}: the model has {count} units, so 1 to {count} blocks are possible")
    bounds = [math.floor(i * count / blocks) for i in range(blocks + 1)]
    return partition_of([(bounds[i], bounds[i + 1] - 1) for i in range(blocks)], count)


def parse_partition(text: str, units: int) -> Partition:
    """`0-2,3-4,5` as blocks of units; raises UsageError naming the option."""
    ranges = []
    try:
        for piece in text.split(","):
            first, _, last = piece.strip().partition("-")
            ranges.append((int(first), int(last or first)))
    except ValueError:
        raise UsageError(f"--partition {text}: write unit ranges such as 0-2,3-4,5-8") from None
    return partition_of(ranges, units)


def partition_of(ranges: list[tuple[int, int]], units: int) -> Partition:
    """A checked partition from inclusive unit ranges."""
    partition = Partition(
        blocks=tuple(Block(index=i, first_unit=a, last_unit=b) for i, (a, b) in enumerate(ranges, start=1))
    )
    partition.check(units)
    return partition
