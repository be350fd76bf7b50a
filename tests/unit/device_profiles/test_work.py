"""Every kind of work: its names, its labels in a partition, and the lists that follow from the union."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import FormatError
from device_profiles.model import Block, Partition
from device_profiles.work import (
    MEASURED_KINDS,
    PROGRAM_KINDS,
    TRAINING_KINDS,
    Depth,
    Distill,
    Eval,
    Features,
    Grow,
    Head,
    Joint,
    Narrow,
    ProgramWork,
    Whole,
    Width,
    Work,
    block_number,
    block_of,
    blocks_of,
    depth,
    distill,
    first_trained_unit,
    grow,
    joint,
    label,
    of_block,
    parse_work,
    programs_of,
    suffixes,
)

EVERY = (*get_args(Work), Eval, Features)
ANY = Work | ProgramWork


def _partition(lengths: list[int]) -> Partition:
    blocks, start = [], 0
    for index, length in enumerate(lengths, start=1):
        blocks.append(Block(index=index, first_unit=start, last_unit=start + length - 1))
        start += length
    return Partition(blocks=tuple(blocks))


PARTITIONS = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(_partition)
UNITS = st.integers(0, 30)
WORKS = st.one_of(
    *(st.builds(kind, first_unit=UNITS, last_unit=UNITS) for kind in (Grow, Joint, Distill)),
    *(st.builds(kind, last_unit=UNITS) for kind in (Depth, Eval, Features)),
    *(st.builds(kind, ratio=st.sampled_from([1.0, 0.5, 0.0625, 0.9375])) for kind in (Narrow, Width)),
    st.just(Whole()),
)


@given(WORKS)
def test_a_name_is_read_back_and_so_is_json(work: ANY) -> None:
    assert parse_work(work.name) == work
    assert msgspec.json.decode(msgspec.json.encode(work), type=ANY) == work


@given(WORKS, WORKS)
def test_two_works_have_two_names(one: ANY, other: ANY) -> None:
    assert (one.name == other.name) == (one == other)


@given(WORKS, WORKS, PARTITIONS)
def test_two_works_have_two_labels_in_any_partition(one: ANY, other: ANY, partition: Partition) -> None:
    assert (label(one, partition) == label(other, partition)) == (one == other)


@given(PARTITIONS)
def test_blocks_are_found_again(partition: Partition) -> None:
    for block in partition.blocks:
        for kind in ("grow", "distill", "eval", *(("features",) if block.index > 1 else ())):
            work = of_block(kind, partition, block.index)
            assert block_of(work, partition) == block.index
            assert label(work, partition) == f"{kind}-block{block.index}"
            assert label(work, partition, "cached-prefix") == f"{kind}-block{block.index}-cached-prefix"
        for first in range(1, block.index):
            assert blocks_of(joint(partition, first, block.index), partition) == (first, block.index)
            assert label(joint(partition, first, block.index), partition) == f"joint-blocks{first}-{block.index}"
        assert label(depth(partition, block.index), partition) == f"depth{block.index}"


def test_a_part_of_a_block_can_be_said_and_is_no_block() -> None:
    partition = _partition([2, 3])
    suffix = Grow(first_unit=3, last_unit=4)
    assert blocks_of(suffix, partition) is None and label(suffix, partition) == "grow-units3-4"
    assert list(suffix.units) == [3, 4] and first_trained_unit(suffix) == 3
    # The same units are a block of another partition.
    assert label(suffix, _partition([3, 2])) == "grow-block2"
    with pytest.raises(FormatError, match=r"'grow-units3-4' is about no block of the partition"):
        block_of(suffix, partition)


def test_units_that_end_before_they_begin_are_no_block() -> None:
    partition = _partition([1, 1, 1])
    backwards = Grow(first_unit=2, last_unit=0)
    assert label(backwards, partition) not in {label(grow(partition, b), partition) for b in (1, 2, 3)}


@pytest.mark.parametrize(
    "name", ["", "grow", "grow-units3", "grow-units-1-3", "grow-block2", "narrow-a", "eval-units1-4"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="names no work"):
        parse_work(name)


def test_the_lists_follow_from_the_union() -> None:
    assert set(PROGRAM_KINDS) == {"grow", "joint", "head", "distill", "eval", "features"}
    assert set(TRAINING_KINDS) == {"grow", "joint", "head", "distill"} and set(MEASURED_KINDS) == {
        *TRAINING_KINDS,
        "eval",
    }
    assert {kind.__struct_config__.tag for kind in EVERY} == {kind.__name__.lower() for kind in EVERY}


def test_an_update_may_come_from_the_program_over_a_cache() -> None:
    partition = _partition([1, 2])
    traded = {f"grow-block2-{trade}" for trade in ("recompute", "bfloat16", "micro2", "micro4")}
    assert programs_of(grow(partition, 2), partition) == {"grow-block2", "grow-block2-cached-prefix", *traded}
    assert programs_of(distill(partition, 2), partition) == {"distill-block2", "distill-block2-cached-prefix"}
    assert "joint-blocks1-2-cached-prefix" not in programs_of(joint(partition, 1, 2), partition)
    assert programs_of(Whole(), partition) == {"whole"}


def test_suffixes_of_a_block_are_every_run_that_ends_with_it_the_longest_first() -> None:
    partition = _partition([2, 3])
    works = suffixes(partition, 2)
    assert [first_trained_unit(work) for work in works] == [0, 1, 2, 3, 4, 5]
    assert works[2] == grow(partition, 2) and works[0] == joint(partition, 1, 2) and works[5] == Head(last_unit=4)
    assert {block_of(work, partition) for work in works} == {block_number(work, partition) for work in works} == {2}
    assert [label(work, partition) for work in works] == [
        *("joint-blocks1-2", "joint-units1-4", "grow-block2", "joint-units3-4", "joint-units4-4", "head-block2")
    ]
    assert [first_trained_unit(work) for work in suffixes(partition, 1)] == [0, 1, 2]


def test_the_whole_network_is_no_block() -> None:
    assert block_number(Whole(), _partition([1, 2])) == 0 == block_number(Narrow(ratio=0.5), _partition([1, 2]))
