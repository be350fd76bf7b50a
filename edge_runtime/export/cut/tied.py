"""Tensors that several modules share, or one module that the model runs several times.

Blocks are trained one after the other, each with its own copy of what it holds: a tensor that two of them would train,
or that one trains while the other is frozen, cannot be right in both. Within one block its gradients are added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from device_profiles.errors import UsageError
from device_profiles.model import Partition
from device_profiles.settings import Setting
from edge_runtime.export.cut.units import CutModel
from edge_runtime.export.ir.layers import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class _Use:
    """`block` is 1-based; the head, which is trained with every block, is behind the last."""

    block: int
    module: str


def second_names(state: Mapping[str, Tensor], *, used: Iterable[str]) -> dict[str, str]:
    """Names of a `state_dict` that stand for a tensor which has another name too, each with that name: the one that
    layers use, or the first where none does."""
    used = set(used)
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in state.items():
        if tensor.numel() > 0:
            place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            groups.setdefault(place, []).append(name)
    found: dict[str, str] = {}
    for names in groups.values():
        main = next((name for name in names if name in used), names[0])
        found |= {name: main for name in names if name not in used and name != main}
    return found


def check_tied(cut: CutModel, partition: Partition, fixed: frozenset[str] = frozenset()) -> None:
    """Raise UsageError, naming the first tensor and its modules, where blocks would train the same tensor apart.

    Those in `fixed` are the same everywhere.
    """
    head = len(partition.blocks) + 1
    uses: dict[str, list[_Use]] = {}
    for block in partition.blocks:
        for unit in cut.units[block.first_unit : block.last_unit + 1]:
            _add(uses, unit.layers, block.index, fixed)
    _add(uses, cut.head.layers, head, fixed)
    for name, found in uses.items():
        first, last = found[0], found[-1]
        if first.block == last.block or (last.block == head and len(partition.blocks) == 1):
            continue
        places = [f"module '{use.module}' of {_place(use.block, head)}" for use in (first, last)]
        raise UsageError(
            f"tensor '{name}' is shared by {places[0]} and {places[1]}, which are trained apart",
            remedy=(
                "keep them in one block with ",
                Setting("partition", _together(partition, first.block, last.block)),
            ),
        )


def places_apart(cut: CutModel, fixed: frozenset[str] = frozenset()) -> list[int]:
    """Numbers of units behind which the model can be cut so that no two blocks, nor a block and the head, train the
    same tensor apart."""
    count = len(cut.units)
    uses: dict[str, list[_Use]] = {}
    for number, unit in enumerate(cut.units):
        _add(uses, unit.layers, number, fixed)
    _add(uses, cut.head.layers, count, fixed)
    apart = set(range(1, count))
    for found in uses.values():
        first, last = found[0].block, found[-1].block
        if first < last == count:  # the head is trained with every block
            return []
        apart -= set(range(first + 1, last + 1))
    return sorted(apart)


def _add(uses: dict[str, list[_Use]], layers: tuple[Layer, ...], block: int, fixed: frozenset[str]) -> None:
    for layer in layers:
        for name in layer.tensors:
            updated = layer.kind == "batch_norm" and name in layer.tensors[2:] and not layer.attributes.get("fixed")
            if name is None or (name in fixed and not updated):
                continue
            uses.setdefault(name, []).append(_Use(block=block, module=layer.module))


def _place(block: int, head: int) -> str:
    return "the head" if block == head else f"block {block}"


def _together(partition: Partition, first: int, last: int) -> str:
    """The partition with the blocks from `first` to `last` in one; all of them where the head is the last."""
    blocks = partition.blocks
    if last > len(blocks):
        return f"0-{blocks[-1].last_unit}"
    ranges = [(block.first_unit, block.last_unit) for block in blocks]
    joined = [*ranges[: first - 1], (ranges[first - 1][0], ranges[last - 1][1]), *ranges[last:]]
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in joined)
