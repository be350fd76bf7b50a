"""Menus: what there is that devices can be asked for, in each step of a partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from device_profiles.contract import CACHED_PREFIX_VARIANT
from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.trades import trade_named
from device_profiles.work import Distill, Growing, Head, Joint, ProgramWork, blocks_of, grow, label, suffixes
from server.planner.choices import Offer, Trained

Course = list[list[Offer]]
"""Of one step: the offers of each of its suffixes, the longest first, and of the output module alone."""


def step_alone(end: int, units: int) -> Partition:
    """The partition in which the choice of steps looks at a step: its units, and all behind them as one block."""
    return Partition.ending_with([end, units - 1] if end < units - 1 else [end])


class Menu(Protocol):
    """What there is to choose from."""

    def ends(self) -> Mapping[int, Course]:
        """By every unit that a step may end with, what lies behind it as one block: for the choice of steps."""

    def courses(self, partition: Partition) -> Mapping[int, Course]:
        """By the last unit of each block of a partition."""

    def lighter(self, work: Growing, partition: Partition) -> Offer | None:
        """The step of `work` in the least memory that keeps its result; None where nothing saves any, or there is no
        such program."""


class Programs(Protocol):
    """What a plan needs of a manifest."""

    @property
    def partition(self) -> Partition:
        """The steps, as blocks."""

    @property
    def programs(self) -> Sequence[Program]:
        """Those that clients may be asked for, among others."""


class BundleMenu:
    """The programs of a bundle, step by step.

    Each client trains the block itself; with `joint`, or where the bundle has programs of runs of units that are no
    blocks, any run that ends with the block. `measured` are works that profiles know of the bundle.
    """

    def __init__(self, bundle: Programs, *, joint: bool, measured: Collection[Trained] = ()) -> None:
        self.partition = bundle.partition
        self._programs: dict[ProgramWork, list[Program]] = {}
        for program in bundle.programs:
            if program.variant != CACHED_PREFIX_VARIANT:
                self._programs.setdefault(program.work, []).append(program)
        self._measured = frozenset(measured)
        self._runs = joint or any(_is_no_block(work, self.partition) for work in self._programs)

    def ends(self) -> dict[int, Course]:
        """A bundle has steps for the ends of its blocks alone."""
        last = self.partition.blocks[-1].last_unit
        nothing: dict[int, Course] = {end: [[] for _ in range(end + 2)] for end in range(last + 1)}
        return nothing | self.courses(self.partition)

    def courses(self, partition: Partition) -> dict[int, Course]:
        """Of the bundle's own partition."""
        return {block.last_unit: self._course(block.index) for block in partition.blocks}

    def lighter(self, work: Growing, partition: Partition) -> Offer | None:
        """A bundle has what was exported."""
        return None

    def distillations(self) -> list[Offer]:
        """Those of blocks that some device has measured."""
        works = [Distill(first_unit=b.first_unit, last_unit=b.last_unit) for b in self.partition.blocks]
        return [offer for work in works if work in self._measured for offer in self.offers(work)]

    def offers(self, work: Trained) -> list[Offer]:
        """Programs of one piece of work; without a plan where nobody but a profile knows of it."""
        name = label(work, self.partition)
        known = [(program, trade_named(program.name, name)) for program in self._programs.get(work, ())]
        offers = [
            Offer(work=work, program=program.name, trade=trade, plan=program)
            for program, trade in known
            if trade is not None
        ]
        return offers or [Offer(work=work, program=name)]

    def everything(self) -> list[Offer]:
        """All training programs of the bundle."""
        works = [work for work in self._programs if isinstance(work, (Growing, Distill))]
        return [offer for work in works for offer in self.offers(work)]

    def _course(self, block: int) -> Course:
        own = grow(self.partition, block)
        works = suffixes(self.partition, block)
        there: set[Growing] = {own}
        if self._runs:
            there = {work for work in works if work in self._programs or work in self._measured} or {own}
        return [self.offers(work) if work in there else [] for work in works]


def _is_no_block(work: ProgramWork, partition: Partition) -> bool:
    """Whether it is a training step of other units than those of blocks."""
    return isinstance(work, Head) or (isinstance(work, Joint) and blocks_of(work, partition) is None)
