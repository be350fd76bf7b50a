"""What one client trains in a round, whatever the method and the engine."""

from __future__ import annotations

from typing import Literal

import msgspec

from device_profiles.contract import CACHED_PREFIX_VARIANT, program_name

Purpose = Literal["grow", "joint", "distill", "whole", "narrow", "width", "depth"]


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the model and what is done with it.

    `grow`: block `block` (1-based) with its output module behind it, the blocks before it frozen; shrinking trains the
    same. `joint`: the same of blocks `first` to `block` together. `distill`: the stand-in of block `block`, against
    that block. `whole`: the whole network. `narrow`: the whole network with `ratio` of its channels; `width`: the same
    as a slice of a wider one, the first channels of every layer (HeteroFL). `depth`: blocks 1 to `block`, with a
    classifier behind each (DepthFL).
    """

    purpose: Purpose
    block: int = 1
    first: int | None = None
    ratio: float = 1.0

    @property
    def name(self) -> str:
        """Its name in promises, updates and reports; a bundle's program of it, if it has one, carries the same."""
        if self.purpose == "grow" or self.purpose == "joint" or self.purpose == "distill":
            return program_name(self.purpose, self.block, first_block=self.first)
        if self.purpose == "narrow" or self.purpose == "width":
            return f"{self.purpose}-{self.ratio:g}"
        return self.purpose if self.purpose == "whole" else f"depth{self.block}"

    @property
    def first_block(self) -> int:
        """The first block that it trains; those before are frozen."""
        if self.purpose == "grow" or self.purpose == "distill":
            return self.block
        return 1 if self.first is None else self.first

    @property
    def programs(self) -> frozenset[str]:
        """Names that an update of it may carry: that of the bundle's program, also as it reads kept outputs of frozen
        blocks."""
        if self.purpose == "grow" or self.purpose == "distill":
            return frozenset({self.name, program_name(self.purpose, self.block, CACHED_PREFIX_VARIANT)})
        return frozenset({self.name})
