"""Partitions for tests that are about blocks alone, and numbers by what works are called in them."""

from __future__ import annotations

from collections.abc import Mapping

from device_profiles.model import Block, Partition
from device_profiles.work import depth, distill, grow, joint, label


def blocks_of_one_unit(count: int) -> Partition:
    """Block b is unit b - 1."""
    return Partition(blocks=tuple(Block(index=i + 1, first_unit=i, last_unit=i) for i in range(count)))


def by_name(labelled: Mapping[str, int], partition: Partition) -> dict[str, int]:
    """Numbers by label (`grow-block2`) as numbers by the name of the work; other names stay."""
    indices = [block.index for block in partition.blocks]
    works = [kind(partition, index) for index in indices for kind in (grow, distill, depth)]
    works += [joint(partition, first, last) for last in indices for first in range(1, last)]
    names = {label(work, partition): work.name for work in works}
    return {names.get(name, name): value for name, value in labelled.items()}
