"""ProFL in which every client freezes no more than its memory asks for: a method of our own."""

from __future__ import annotations

from dataclasses import replace

from device_profiles.model import Partition
from device_profiles.work import Work, joint
from server.fleet.fleet import Fleet
from server.methods.method import Promises, Stage
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

    def stages(self, fleet: Fleet, partition: Partition, promises: Promises) -> tuple[Stage, ...]:
        """Those of ProFL; in growing, each client with the longest run that it holds."""
        return tuple(
            _elastic(stage, partition, promises) if stage.name == "grow" and stage.block > 1 else stage
            for stage in super().stages(fleet, partition, promises)
        )


def _runs(partition: Partition, block: int) -> list[Work]:
    """Blocks 1 to `block` together, 2 to `block`, and so on; not `block` alone."""
    return [joint(partition, first, block) for first in range(1, block)]


def _elastic(stage: Stage, partition: Partition, promises: Promises) -> Stage:
    longest = {client: promises.first_held(client, _runs(partition, stage.block)) for client in promises.budgets}
    runs = {client: run for client, run in longest.items() if run is not None}
    return replace(stage, work={**stage.work, **runs}, frozen_count=True)
