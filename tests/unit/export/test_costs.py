"""Costs of runs: to the byte what an exported program's manifest says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

pytest.importorskip("torch", reason="a step is built from a PyTorch module")

import torch
from torch import Tensor, nn

from device_profiles.contract import CACHED_PREFIX_VARIANT, TRAINED_ROLES
from device_profiles.costs import Costs, RunCost
from device_profiles.errors import FormatError
from device_profiles.manifest import Optimizer, Program
from device_profiles.model import Partition
from device_profiles.work import Grow
from edge_runtime.export import models
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.costs import Variants, recomputed_cost, step_costs
from edge_runtime.export.plan.programs import build_programs
from edge_runtime.export.plan.runs import Run, TrainingChoices, step_of
from edge_runtime.export.step.train_step import StepVariant
from tests.support import token_models

_SGD = TrainingChoices(optimizer=Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4))
_EVERYTHING = Variants(recompute=False, recompute_shares=(0.0, 0.5))


def _cnn(batch: int = 8) -> BlockModel:
    return BlockModel.of(models.create("cnn", width=8), name="cnn", batch=batch, input_shape=(3, 32, 32), classes=10)


def _vit() -> BlockModel:
    return BlockModel.of(token_models.vit(), name="vit", batch=4, input_shape=(3, 32, 32), classes=10)


def _exported(source: BlockModel, cost: RunCost) -> Program:
    """The program of a run's own bundle: its prefix is one block, the run another, and those behind it stay as cut."""
    count = len(source.cut.units)
    ranges = [(cost.first_unit, cost.last_unit)]
    if cost.first_unit > 0:
        ranges.insert(0, (0, cost.first_unit - 1))
    if cost.last_unit < count - 1:
        ranges.append((cost.last_unit + 1, count - 1))
    index = 2 if cost.first_unit > 0 else 1
    choices = replace(
        _SGD,
        optimizer=Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4, momentum_dtype=cost.momentum_dtype),
        micro_batches=cost.batch // cost.micro_batch,
        recompute_bytes=cost.recompute_bytes,
    )
    programs = build_programs(source, partition_of(ranges, count), blocks=(index,), choices=choices)
    cached = cost.variant == CACHED_PREFIX_VARIANT
    return next(
        p for p, _, _ in programs if isinstance(p.work, Grow) and (p.variant == CACHED_PREFIX_VARIANT) is cached
    )


def _ending_at(source: BlockModel, last: int) -> Partition:
    count = len(source.cut.units)
    return partition_of([(0, last)] + ([(last + 1, count - 1)] if last < count - 1 else []), count)


@pytest.mark.parametrize(
    ("make", "variants", "names"),
    [
        (_cnn, _EVERYTHING, ("default", "recompute", "cached-prefix")),
        (_vit, Variants(recompute=False), ("default", "cached-prefix")),
    ],
)
def test_every_run_has_the_plan_of_the_program_that_an_export_writes(
    make: Callable[[], BlockModel], variants: Variants, names: tuple[str, ...]
) -> None:
    source = make()
    count = len(source.cut.units)
    seen = set()
    for last in (0, count // 2, count - 1):
        for cost in step_costs([source], _ending_at(source, last), _SGD, variants):
            if cost.last_unit != last or cost.first_unit > last:
                continue
            program = _exported(source, cost)
            memory = program.memory
            assert (cost.arena_bytes, cost.frozen_bytes, cost.staging_bytes) == (
                memory.arena_bytes,
                memory.frozen_bytes,
                memory.staging_bytes,
            )
            assert cost.total_bytes(2) == memory.total_bytes(2)
            assert sum(load.calls for load in cost.loads.values()) == program.instructions
            seen.add((cost.variant, cost.momentum_dtype))
    assert seen == {*((name, "float32") for name in names), ("default", "bfloat16")}


def test_recomputation_is_in_the_table_where_it_saves_bytes_as_a_planner_asks_for_it() -> None:
    source = _cnn()
    partition = _ending_at(source, 2)
    rows = {row.first_unit: row for row in step_costs([source], partition, _SGD, Variants()) if row.recompute_bytes}
    for first in range(4):
        run = Run(first_unit=first, last_unit=2, stand_ins=source.stand_ins(partition, 1))
        assert rows.get(first) == recomputed_cost(source, run, _SGD)
    assert rows
    for row in rows.values():
        program = _exported(source, row)
        assert program.memory.arena_bytes <= row.arena_bytes
        assert program.instructions <= row.load.calls


def test_micro_batches_cost_what_their_program_states() -> None:
    whole, half = _cnn(8), _cnn(4)
    partition = _ending_at(whole, 2)
    rows = [row for row in step_costs([whole, half], partition, _SGD) if row.first_unit == 1]
    assert [(row.batch, row.micro_batch) for row in rows] == [(8, 8), (8, 4)]
    assert rows[1].total_bytes(1) == _exported(half, rows[1]).memory.total_bytes(1)
    assert rows[1].arena_bytes < rows[0].arena_bytes
    assert rows[1].load.flop == rows[0].load.flop


def test_the_output_module_alone_trains_the_head_and_the_stand_ins() -> None:
    source = _cnn()
    alone = next(row for row in step_costs([source], _ending_at(source, 1), _SGD) if row.first_unit == 2)
    assert alone.last_unit == 1
    trained = source.stand_ins(_ending_at(source, 1), 1)
    graph = step_of(source, Run(first_unit=2, last_unit=1, stand_ins=trained), _SGD)(StepVariant())
    assert [value.name for value in graph.state if value.role == "parameter"] == [
        trained[0].name,
        *(name for name in source.cut.head.tensors),
    ]
    assert alone.upload_bytes == sum(value.bytes for value in graph.state if value.role in TRAINED_ROLES)


def test_longer_suffixes_upload_more_and_download_the_same() -> None:
    source = _cnn()
    rows = list(step_costs([source], _ending_at(source, 2), _SGD))
    assert [row.first_unit for row in rows] == [0, 1, 2, 3]
    assert all(a.upload_bytes > b.upload_bytes for a, b in itertools.pairwise(rows))
    assert len({row.download_bytes for row in rows}) == 1


class _Tied(nn.Module):
    """The same linear layer before and behind another one: [N, 6] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for layer in (self.shared, self.between, self.shared):
            x = torch.relu(layer(x))
        out: Tensor = self.fc(x)
        return out


def test_runs_whose_prefix_reads_what_they_train_are_left_out() -> None:
    source = BlockModel.of(_Tied(), name="tied", batch=4, input_shape=(6,), classes=10)
    assert len(source.cut.units) == 3
    rows = step_costs([source], _ending_at(source, 2), _SGD)
    assert [row.first_unit for row in rows] == [0, 3]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"first_unit": 4}, "lies behind last_unit"),
        ({"micro_batch": 3}, "not a multiple of micro_batch"),
        ({"arena_bytes": -1}, "arena_bytes is below 0"),
        ({"variant": "recompute"}, "recompute_bytes"),
        ({"variant": "cached-prefix", "first_unit": 0}, "no prefix"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(changes: dict[str, object], says: str) -> None:
    row = next(iter(step_costs([_cnn()], _ending_at(_cnn(), 2), _SGD)))
    wrong = Costs(model="cnn", runs=(msgspec.structs.replace(row, **changes),))
    with pytest.raises(FormatError, match=says):
        wrong.check("costs.json")
    Costs(model="cnn", runs=(row,)).check("costs.json")
