"""Work: what a client or a program can be asked to do with a model. Every list of kinds of work is derived from here.

Runs of layers are named by their units (0-based, both ends included), not by the blocks of one partition: the same
names serve any cut of the model, and a part of a block can be said. People ask for blocks and read labels
(`grow-block2`), which a partition gives (`label`, `block_of`).
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import msgspec

from device_profiles.contract import CACHED_PREFIX_VARIANT, Variant
from device_profiles.errors import FormatError
from device_profiles.model import Block, Partition
from device_profiles.trades import TRADES, with_trade


class _Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`trains`: whether a program of it changes tensors, so that a client can be asked for it and sends an update."""

    trains: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """The name of the kind, as in JSON, in options (`--purpose`) and in front of every name."""
        return str(type(self).__struct_config__.tag)

    @property
    def name(self) -> str:
        """A name that `parse_work` reads back; the same in every partition."""
        return self.kind


class _Run(_Work, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of units, and the output module that takes the place of what lies behind it."""

    first_unit: int
    last_unit: int

    @property
    def name(self) -> str:
        """`grow-units3-5`."""
        return f"{self.kind}-units{self.first_unit}-{self.last_unit}"

    @property
    def units(self) -> range:
        """The units that it is about."""
        return range(self.first_unit, self.last_unit + 1)


class Grow(_Run, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="grow"):
    """One training step of a run of units with its output module, those before it frozen; shrinking trains the same."""


class Joint(_Run, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="joint"):
    """The same of a run that is no block: with blocks before it that stay in training, or its last units alone."""


class Distill(_Run, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="distill"):
    """One step of the distillation of a run of units into the stand-in that takes its place."""


class Whole(_Work, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="whole"):
    """The whole network."""


class _Slice(_Work, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ratio: float

    @property
    def name(self) -> str:
        """`narrow-0.5`."""
        return f"{self.kind}-{self.ratio:g}"


class Narrow(_Slice, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="narrow"):
    """The whole network with `ratio` of its channels."""


class Width(_Slice, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="width"):
    """The same as a slice of a wider network: the first channels of every layer (HeteroFL)."""


class Sublayers(_Slice, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="sublayers"):
    """The whole network, of whose layers `ratio` of the rows is trained and the others are frozen (FedPLT)."""


class _Start(_Work, frozen=True, kw_only=True, forbid_unknown_fields=True):
    last_unit: int

    @property
    def name(self) -> str:
        """`depth-units0-5`."""
        return f"{self.kind}-units0-{self.last_unit}"

    @property
    def units(self) -> range:
        """The units that it is about."""
        return range(self.last_unit + 1)


class Depth(_Start, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="depth"):
    """The units up to `last_unit`, with a classifier behind each of their blocks (DepthFL)."""


class Head(_Start, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="head"):
    """One training step of the output module behind `last_unit` alone; every unit is frozen."""


class Eval(_Start, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="eval"):
    """Logits of the model up to `last_unit`, with its output module."""

    trains: ClassVar[bool] = False


class Features(_Start, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="features"):
    """What the frozen units up to `last_unit` put out: what the `cached-prefix` variants of training steps read."""

    trains: ClassVar[bool] = False


Work = Grow | Joint | Head | Distill | Whole | Narrow | Width | Sublayers | Depth
"""What a client can be asked for."""
ProgramWork = Grow | Joint | Head | Distill | Eval | Features
"""What a program of a bundle can do."""
Growing = Grow | Joint | Head
"""What a client may train in the step of a block: a run of units that ends with it, or the output module alone."""
OfBlock = Grow | Distill | Eval | Features
"""What is asked for by one block."""
BlockKind = Literal["grow", "distill", "eval", "features"]
TrainingKind = Literal["grow", "distill"]
"""What one block can be asked to do in training."""

_KINDS: dict[str, type[Work | ProgramWork]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(Work | ProgramWork)
}
PROGRAM_KINDS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in get_args(ProgramWork))
"""Kinds of programs."""
MEASURED_KINDS: tuple[str, ...] = tuple(name for name in PROGRAM_KINDS if _KINDS[name] is not Features)
"""Kinds whose programs are measured by themselves; features are measured with the programs that read them."""
TRAINING_KINDS: tuple[str, ...] = tuple(name for name in PROGRAM_KINDS if _KINDS[name].trains)
"""Kinds whose programs train something."""


def parse_work(name: str) -> Work | ProgramWork:
    """The work that a `name` says; raises FormatError."""
    kind, _, rest = name.partition("-")
    found = _KINDS.get(kind)
    try:
        made = None if found is None else _parsed(found, rest)
    except ValueError:
        made = None
    if made is not None and made.name == name:
        return made
    raise FormatError(f"'{name}' names no work; names are like grow-units0-3, narrow-0.5 or whole")


def _parsed(kind: type[Work | ProgramWork], rest: str) -> Work | ProgramWork:
    if issubclass(kind, Whole):
        return kind()
    if issubclass(kind, _Slice):
        return kind(ratio=float(rest))
    first, _, last = rest.removeprefix("units").partition("-")
    if issubclass(kind, (Grow, Joint, Distill)):
        return kind(first_unit=int(first), last_unit=int(last))
    return kind(last_unit=int(last))


def of_block(kind: BlockKind, partition: Partition, block: int) -> OfBlock:
    """The work of a kind about one block (1-based); `features` are what lies before it."""
    own = partition.blocks[block - 1]
    if kind == "eval":
        return Eval(last_unit=own.last_unit)
    if kind == "features":
        return Features(last_unit=own.first_unit - 1)
    return grow(partition, block) if kind == "grow" else distill(partition, block)


def grow(partition: Partition, block: int) -> Grow:
    """Growing one block (1-based)."""
    own = partition.blocks[block - 1]
    return Grow(first_unit=own.first_unit, last_unit=own.last_unit)


def distill(partition: Partition, block: int) -> Distill:
    """Distilling one block (1-based)."""
    own = partition.blocks[block - 1]
    return Distill(first_unit=own.first_unit, last_unit=own.last_unit)


def joint(partition: Partition, first: int, block: int) -> Joint:
    """Training blocks `first` to `block` (1-based) together."""
    return Joint(first_unit=partition.blocks[first - 1].first_unit, last_unit=partition.blocks[block - 1].last_unit)


def suffixes(partition: Partition, block: int) -> tuple[Growing, ...]:
    """What may be trained in the step of `block` (1-based), the most first: every run of units that ends with the
    block, from the model's first unit on, down to the output module alone."""
    own = partition.blocks[block - 1]
    runs = [
        grow(partition, block) if first == own.first_unit else Joint(first_unit=first, last_unit=own.last_unit)
        for first in range(own.last_unit + 1)
    ]
    return (*runs, Head(last_unit=own.last_unit))


def depth(partition: Partition, block: int) -> Depth:
    """Training blocks 1 to `block`, with a classifier behind each."""
    return Depth(last_unit=partition.blocks[block - 1].last_unit)


def first_trained_unit(work: Work) -> int:
    """The first unit that it trains; those before are frozen."""
    if isinstance(work, Head):
        return work.last_unit + 1
    return work.first_unit if isinstance(work, _Run) else 0


def blocks_of(work: Work | ProgramWork, partition: Partition) -> tuple[int, int] | None:
    """The first and the last block (1-based) that it is about; None where it is about the whole network, or where its
    units are no blocks of `partition`."""
    if isinstance(work, (Whole, _Slice)):
        return None
    if isinstance(work, Features):
        behind = _starting_at(work.last_unit + 1, partition)
        return None if behind is None else (behind.index, behind.index)
    last = next((block for block in partition.blocks if block.last_unit == work.last_unit), None)
    if last is None:
        return None
    if isinstance(work, _Start):
        return (1 if isinstance(work, Depth) else last.index), last.index
    first = _starting_at(work.first_unit, partition)
    return None if first is None else (first.index, last.index)


def _starting_at(unit: int, partition: Partition) -> Block | None:
    return next((block for block in partition.blocks if block.first_unit == unit), None)


def block_of(work: Work | ProgramWork, partition: Partition) -> int:
    """The block (1-based) that is asked for: of a run that is no block, the one that it ends with; raises FormatError
    where there is none."""
    if isinstance(work, Joint):
        work = Head(last_unit=work.last_unit)
    blocks = blocks_of(work, partition)
    if blocks is None:
        raise FormatError(f"'{work.name}' is about no block of the partition")
    return blocks[1]


def block_number(work: Work, partition: Partition) -> int:
    """The block (1-based) that is asked for, 0 where it is the whole network."""
    return 0 if isinstance(work, (Whole, _Slice)) else block_of(work, partition)


def label(work: Work | ProgramWork, partition: Partition, variant: Variant = "default") -> str:
    """What people read, and the name of the bundle's program of it: `grow-block2`, `grow-block2-cached-prefix`,
    `joint-blocks1-2`, `depth3`; the name by units where these are no blocks of `partition`."""
    blocks = blocks_of(work, partition)
    end = f"-{variant}" if variant == CACHED_PREFIX_VARIANT else ""
    if blocks is None:
        return work.name + end
    first, last = blocks
    if isinstance(work, Joint):
        return f"{work.kind}-blocks{first}-{last}{end}"
    if isinstance(work, Depth):
        return f"{work.kind}{last}"
    if first != last:
        return work.name + end
    return f"{work.kind}-block{last}{end}"


def programs_of(work: Work, partition: Partition) -> frozenset[str]:
    """Labels that an update of it may carry: those of the bundle's programs, in any trade, also as they read kept
    outputs of frozen blocks."""
    name = label(work, partition)
    if isinstance(work, Distill):
        return frozenset({name, label(work, partition, CACHED_PREFIX_VARIANT)})
    traded = {with_trade(name, trade) for trade in TRADES if isinstance(work, Growing)} | {name}
    return frozenset(traded | ({label(work, partition, CACHED_PREFIX_VARIANT)} if isinstance(work, Grow) else set()))
