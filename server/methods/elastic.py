"""ProFL in which every client freezes no more than its memory asks for: a method of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from device_profiles.model import Partition
from device_profiles.work import Work, joint
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.methods.method import Stage, held_frozen
from server.methods.profl import ProFL


class ElasticProFL(ProFL):
    """Growing as in ProFL, except that a client goes on training the blocks before the active one that it holds.

    In step t, a client trains blocks s to t together, with the smallest s whose promise it holds, and freezes the
    others; ProFL's step t alone is s = t. Who holds no step has none, as in ProFL. In the average a block counts as
    unchanged for those who froze it: one client of five that trains block 1 moves it by a fifth of its own way, and
    not away from under the blocks that the other four trained behind it. A step ends, as in ProFL, when block t has
    stopped moving. What frozen blocks put out is kept for a round only where others train these blocks.
    """

    name = "elastic"
    source = "this project; the steps are those of Wu, Li, Xu, KDD 2025"

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Those of ProFL, and every run of blocks."""
        runs = [run for block in partition.blocks[1:] for run in _runs(partition, block.index)]
        return (*super().works(partition), *runs)

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """Those of ProFL; in growing, the longest run of blocks is the best."""
        return tuple(
            self._elastic(stage, partition) if stage.name == "grow" and stage.block > 1 else stage
            for stage in super().stages(fleet, partition, clients)
        )

    def _elastic(self, stage: Stage, partition: Partition) -> Stage:
        choices = (*_runs(partition, stage.block), *stage.choices)
        return replace(stage, choices=choices, held_frozen=held_frozen(self._settings, "unchanged"))


def _runs(partition: Partition, block: int) -> list[Work]:
    """Blocks 1 to `block` together, 2 to `block`, and so on; not `block` alone."""
    return [joint(partition, first, block) for first in range(1, block)]
