"""A model as the planner sees it: units, blocks and the partition."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from device_profiles.contract import ITEM_BYTES, DType
from device_profiles.errors import FormatError


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One named tensor of the model's PyTorch `state_dict` (or of an output module).

    `same_as` is set where it is the same tensor as another one, under a second name: of a module that is registered
    twice, or of shared weights. Programs know the other name alone.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    same_as: str | None = None

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count * ITEM_BYTES[self.dtype]


class Unit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The smallest piece between two points of the model where exactly one tensor is alive.

    Shapes are of one example, without the batch dimension.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    tensors: tuple[str, ...]
    parameter_bytes: int


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of consecutive units, `first_unit`..`last_unit` inclusive (0-based); `index` is 1-based."""

    index: int
    first_unit: int
    last_unit: int


class Normalisation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the programs do with each channel or feature of the input: (x - mean) / std, of pixel / 255 where the input
    is an image."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Lora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Adapters of `rank` beside the frozen `weights`: what is used is weight + scale * (lora_b @ lora_a)."""

    rank: int
    scale: float
    weights: tuple[str, ...]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network: its input, its units and every tensor of its `state_dict`.

    `classes` is the width of its output. Where it has an output for each of the `positions` of an example, tokens or
    pixels, these are one after the other, and an example has as many labels. Where the input is tokens (int64), they
    lie in 0..vocabulary-1. `head` names the tensors of the classifier behind the last unit, which every output module
    ends with. `normalisation` is part of its programs; a finished model is without it, and without adapters, which are
    added to its weights.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    positions: int | None = None
    units: tuple[Unit, ...]
    head: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]
    input_dtype: DType = "float32"
    vocabulary: int | None = None
    normalisation: Normalisation | None = None
    lora: Lora | None = None


class Partition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Blocks that cover every unit of the model once, in order."""

    blocks: tuple[Block, ...]

    @classmethod
    def ending_with(cls, ends: Sequence[int]) -> Partition:
        """Blocks that end with these units, rising."""
        starts = [0, *(end + 1 for end in ends[:-1])]
        runs = enumerate(zip(starts, ends, strict=True), start=1)
        return cls(blocks=tuple(Block(index=i, first_unit=first, last_unit=last) for i, (first, last) in runs))

    def check(self, unit_count: int, place: str = "partition") -> None:
        """Raise FormatError unless the blocks cover units 0..unit_count-1 without gap or overlap; `place` is named."""
        expected = 0
        for position, block in enumerate(self.blocks, start=1):
            if block.index != position:
                raise FormatError(f"block {position} carries index {block.index}", place=place)
            if block.first_unit != expected or block.last_unit < block.first_unit:
                raise FormatError(f"block {position} must start at unit {expected} and not be empty", place=place)
            expected = block.last_unit + 1
        if expected != unit_count:
            raise FormatError(f"covers {expected} units, the model has {unit_count}", place=place)
