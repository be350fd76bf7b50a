"""Which cuts `--blocks` and the default choose."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import Tensor, nn  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.manifest import Optimizer  # noqa: E402
from device_profiles.model import Partition  # noqa: E402
from device_profiles.work import grow  # noqa: E402
from edge_runtime.export.cut.tied import check_tied  # noqa: E402
from edge_runtime.export.cut.units import partition_of  # noqa: E402
from edge_runtime.export.plan.balanced import (  # noqa: E402
    _fewest_bytes,
    _Held,
    _Peaks,
    balanced_partition,
    single_partition,
)
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.plan.programs import training_step  # noqa: E402
from edge_runtime.export.plan.runs import TrainingChoices  # noqa: E402
from tests.support import models as others  # noqa: E402

_CHOICES = TrainingChoices(optimizer=Optimizer(name="sgd", momentum=0.9))


def _source(module: nn.Module, batch: int = 4, shape: tuple[int, ...] = (3, 32, 32)) -> BlockModel:
    return BlockModel.of(module, name="am:net", batch=batch, input_shape=shape, classes=10)


def _largest(source: BlockModel, partition: Partition) -> int:
    steps = [training_step(source, partition, grow(partition, block.index), _CHOICES)[0] for block in partition.blocks]
    return max(step.memory.arena_bytes for step in steps)


def test_the_largest_arena_is_far_smaller_than_with_as_many_units_in_each_block() -> None:
    source = _source(others.mobilenet_v3(), batch=32)
    count = len(source.cut.units)
    even = partition_of([(0, count // 2 - 1), (count // 2, count - 1)], count)
    chosen = balanced_partition(source, 2)
    assert len(chosen.blocks) == 2
    assert _largest(source, chosen) < 0.9 * _largest(source, even)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=7),
    st.sets(st.integers(1, 6)),
    st.data(),
)
def test_no_other_cuts_have_a_smaller_largest_peak(
    sizes: list[tuple[int, int]], inner: set[int], data: st.DataObject
) -> None:
    units = [_Held(bytes=size, largest=largest) for size, largest in sizes]
    places = (0, *sorted(place for place in inner if place < len(units)), len(units))
    blocks = data.draw(st.integers(1, len(places) - 1))

    def largest(ends: tuple[int, ...]) -> int:
        pairs = itertools.pairwise((0, *ends))
        return max(sum(u.bytes for u in units[a:b]) + max(u.largest for u in units[a:b]) for a, b in pairs)

    found = _fewest_bytes(_Peaks(units=units, places=places), blocks)
    others = itertools.combinations(places[1:-1], blocks - 1)
    assert largest(tuple(found)) == min(largest((*other, len(units))) for other in others)


def test_cuts_do_not_depend_on_the_batch() -> None:
    partitions = [balanced_partition(_source(others.mobilenet_v3(), batch=batch), 3) for batch in (2, 16)]
    assert partitions[0] == partitions[1]


@pytest.mark.parametrize("blocks", [0, 4])
def test_more_blocks_than_units_point_to_the_command_that_shows_them(blocks: int) -> None:
    source = _source(nn.Sequential(*_convolutions(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)))
    with pytest.raises(UsageError, match=f"^--blocks {blocks}: the model has 3 units, so 1 to 3 blocks are possible"):
        balanced_partition(source, blocks)
    with pytest.raises(UsageError, match="`profl-edge models --model am:net` shows the units"):
        balanced_partition(source, blocks)


def _convolutions(count: int) -> list[nn.Module]:
    return [nn.Conv2d(3, 3, 3, padding=1) for _ in range(count)]


class _Shared(nn.Module):
    """Five convolutions, two of which are the same module, and a head that may be another one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_convolutions(4))
        self.head = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        for place in (0, 1, 2, 1, 3):
            x = torch.relu(self.parts[place](x))
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def test_units_that_share_a_tensor_stay_together() -> None:
    source = _source(_Shared(), shape=(3, 8, 8))
    for partition in (single_partition(source), balanced_partition(source, 3)):
        assert [(block.first_unit, block.last_unit) for block in partition.blocks] == [(0, 0), (1, 3), (4, 4)]
        check_tied(source.cut, partition, source.fixed)
    with pytest.raises(UsageError, match="5 units, some of which share tensors, so 1 to 3 blocks are possible"):
        balanced_partition(source, 4)


class _TiedToTheHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(16, 10)
        self.back = nn.Linear(10, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inside(torch.tanh(self.back(torch.tanh(self.inside(x)))))
        return y


def test_what_shares_a_tensor_with_the_head_is_one_block() -> None:
    source = _source(_TiedToTheHead(), shape=(16,))
    assert len(single_partition(source).blocks) == 1
    with pytest.raises(UsageError, match="share tensors, so only 1 block is possible"):
        balanced_partition(source, 2)
