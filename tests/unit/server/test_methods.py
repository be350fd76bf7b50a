"""Who does what in each method, from promises alone."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from device_profiles.errors import ExecutionError
from device_profiles.model import Partition
from device_profiles.work import Work, block_of, blocks_of, grow
from server.fleet.client import alike
from server.fleet.fleet import DataSettings, Fleet, FreezingSettings, HeldFrozen, MethodSettings
from server.fleet.fleet import TrainingSettings as Training
from server.fleet.model import ModelSettings
from server.fleet.population import ClientSettings
from server.methods import METHODS, create_method
from server.methods.method import Stage
from server.planner.assignment import BestHeld
from server.rounds.frozen_prefixes import FrozenPrefixes
from tests.support.partitions import blocks_of_one_unit, by_name

PARTITION = blocks_of_one_unit(3)
NEEDS = by_name({
    "grow-block1": 50, "grow-block2": 30, "grow-block3": 20, "distill-block2": 25, "distill-block3": 10,
    "joint-blocks1-2": 70, "joint-blocks2-3": 60, "joint-blocks1-3": 100,
    "whole": 100, "depth1": 55, "depth2": 80, "depth3": 101,
    **{f"narrow-{part / 16:g}": 6 * part for part in range(1, 17)},
    **{f"width-{ratio:g}": int(100 * ratio) for ratio in (1, 0.5, 0.25, 0.125, 0.0625)},
}, PARTITION)  # fmt: skip
BUDGETS = {"large": 200, "medium": 60, "small": 20}
CLIENTS = alike(BUDGETS, NEEDS)


def _fleet(method: MethodSettings, rounds: int | None = 30) -> Fleet:
    return Fleet(
        model=ModelSettings(name="cnn"),
        data=DataSettings(sources=("digits",)),
        named=tuple(ClientSettings(name=name, limit_mb=1) for name in BUDGETS),
        training=Training(rounds=rounds),
        freezing=FreezingSettings(max_rounds=8),
        method=method,
    )


def _stages(settings: MethodSettings, **options: int | None) -> tuple[Stage, ...]:
    return create_method(settings).stages(_fleet(settings, **options), PARTITION, CLIENTS)


def _work(stage: Stage) -> dict[str, Work]:
    return dict(BestHeld().assign(stage, CLIENTS))


def test_every_method_names_its_source_and_all_the_work_it_gives() -> None:
    for name in METHODS:
        settings = MethodSettings(name=name, shrinking=True)  # type: ignore[arg-type]  # one of the literals
        method = create_method(settings)
        assert method.name == name and len(method.source) > 20
        given = {work for stage in _stages(settings) for work in (*stage.choices, method.final(PARTITION))}
        assert given <= set(method.works(PARTITION))


def test_profl_shrinks_back_to_front_then_grows_front_to_back() -> None:
    stages = _stages(MethodSettings(shrinking=True, shrink_rounds=4, distill_rounds=2))
    assert [stage.title for stage in stages] == [
        "shrink 3", "distill 3", "shrink 2", "distill 2", "grow 1", "grow 2", "grow 3",
    ]  # fmt: skip
    assert [stage.rounds for stage in stages] == [4, 2, 4, 2, 8, 8, 8]
    assert stages[1].evaluated == grow(PARTITION, 2)  # the step in which the stand-in takes the block's place
    assert stages[1].learning_rate == 1e-5 and stages[0].learning_rate is None
    assert [sorted(_work(stage)) for stage in stages[4:]] == [
        ["large", "medium"], ["large", "medium"], ["large", "medium", "small"],
    ]  # fmt: skip
    assert [stage.takes_the_rest for stage in stages] == [False] * 6 + [True]


def test_profl_without_freezing_gives_every_step_as_many_rounds() -> None:
    stages = _stages(MethodSettings(freezing="equal"))
    assert [stage.rounds for stage in stages] == [10, 10, 10]
    assert all(stage.freezing is None for stage in stages)


def test_elastic_profl_gives_each_client_the_longest_run_of_blocks_that_it_holds() -> None:
    stages = _stages(MethodSettings(name="elastic", shrinking=True))
    assert [stage.title for stage in stages] == [
        "shrink 3", "distill 3", "shrink 2", "distill 2", "grow 1", "grow 2", "grow 3",
    ]  # fmt: skip
    assert all(stage.held_frozen == "left-out" for stage in stages[:5])  # nobody trains more than one block there
    assert [{client: blocks_of(work, PARTITION) for client, work in _work(stage).items()} for stage in stages[4:]] == [
        {"large": (1, 1), "medium": (1, 1)},
        {"large": (1, 2), "medium": (2, 2)},
        {"large": (1, 3), "medium": (2, 3), "small": (3, 3)},
    ]
    last = stages[-1]
    assert last.held_frozen == "unchanged" and last.evaluated == grow(PARTITION, 3)
    work = _work(last)
    names = [FrozenPrefixes().name(0, work[client], work) for client in BUDGETS]
    assert names == ["stage0", None, None]  # others train what medium and small hold frozen


def test_only_clients_that_hold_the_whole_network_take_part_in_exclusivefl() -> None:
    (stage,) = _stages(MethodSettings(name="exclusivefl"))
    assert list(_work(stage)) == ["large"]
    (everybody,) = _stages(MethodSettings(name="fedavg"))
    assert set(_work(everybody)) == set(BUDGETS)


def test_allsmall_takes_the_widest_network_that_all_hold() -> None:
    (stage,) = _stages(MethodSettings(name="allsmall"))
    assert {work.name for work in _work(stage).values()} == {"narrow-0.1875"} and len(_work(stage)) == 3
    assert stage.evaluated.name == "narrow-0.1875"


def test_heterofl_gives_each_client_its_width() -> None:
    (stage,) = _stages(MethodSettings(name="heterofl"))
    assert {client: work.ratio for client, work in _work(stage).items()} == {
        "large": 1.0,
        "medium": 0.5,
        "small": 0.125,
    }


def test_what_nobody_holds_is_not_evaluated() -> None:
    settings = {name: MethodSettings(name=name) for name in ("heterofl", "depthfl")}  # type: ignore[arg-type]
    for budgets, names in (
        ({"large": 200, "small": 20}, {"heterofl": "width-1", "depthfl": "depth-units0-2"}),
        ({"medium": 60, "small": 20}, {"heterofl": "width-0.5", "depthfl": "depth-units0-0"}),
    ):
        for name, evaluated in names.items():
            method = create_method(settings[name])
            (stage,) = method.stages(_fleet(settings[name]), PARTITION, alike(budgets, NEEDS))
            assert (stage.evaluated.name, method.final(PARTITION).name) == (evaluated, evaluated)


def test_depthfl_gives_each_client_its_depth_and_leaves_out_who_holds_none() -> None:
    (stage,) = _stages(MethodSettings(name="depthfl"))
    assert {client: block_of(work, PARTITION) for client, work in _work(stage).items()} == {"large": 3, "medium": 1}


def test_methods_without_an_end_of_their_own_ask_for_a_round_budget() -> None:
    with pytest.raises(ExecutionError, match=r"training\.rounds"):
        _stages(MethodSettings(name="fedavg"), rounds=None)
    assert not _stages(MethodSettings(), rounds=None)[-1].takes_the_rest


SUFFIXES = Partition.ending_with([1, 3])
OF_SUFFIXES = {
    **{f"joint-units{first}-1": need for first, need in ((0, 150), (1, 70))},
    **{"grow-units0-1": 150, "grow-units2-3": 50, "head-units0-1": 18, "head-units0-3": 15},
    **{"joint-units0-3": 220, "joint-units1-3": 120, "joint-units3-3": 30},
}


def test_planned_gives_each_client_the_longest_suffix_that_it_holds() -> None:
    settings = MethodSettings(name="planned")
    clients = alike({**BUDGETS, "tiny": 10}, OF_SUFFIXES)
    stages = create_method(settings).stages(_fleet(settings), SUFFIXES, clients)
    assert [stage.title for stage in stages] == ["grow 1", "grow 2"]
    given = [{c: work.name for c, work in BestHeld().assign(stage, clients).items()} for stage in stages]
    assert given == [
        {"large": "grow-units0-1", "medium": "head-units0-1", "small": "head-units0-1"},
        {"large": "joint-units1-3", "medium": "grow-units2-3", "small": "head-units0-3"},
    ]
    assert [stage.takes_the_rest for stage in stages] == [False, True]


@pytest.mark.parametrize(("name", "own"), [("planned", "damped"), ("elastic", "unchanged")])
def test_whether_frozen_tensors_count_is_the_methods_choice_where_the_fleet_file_says_nothing(
    name: Literal["planned", "elastic"], own: HeldFrozen
) -> None:
    for said, counted in ((None, own), (False, "left-out"), (True, "unchanged")):
        settings = MethodSettings(name=name, counts_frozen=said)
        assert create_method(settings).stages(_fleet(settings), SUFFIXES, CLIENTS)[-1].held_frozen == counted


def test_planned_asks_for_a_fall_of_movement_unless_the_fleet_file_says_how_far() -> None:
    settings = MethodSettings(name="planned")
    fleet = _fleet(settings)
    stages = create_method(settings).stages(fleet, SUFFIXES, CLIENTS)
    assert [stage.freezing and stage.freezing.fall for stage in stages] == [0.8, 0.8]
    published = msgspec.structs.replace(fleet, freezing=FreezingSettings(fall=1.0))
    stages = create_method(settings).stages(published, SUFFIXES, CLIENTS)
    assert [stage.freezing and stage.freezing.fall for stage in stages] == [1.0, 1.0]
    level = msgspec.structs.replace(fleet, freezing=FreezingSettings(level=0.5))
    stages = create_method(settings).stages(level, SUFFIXES, CLIENTS)
    assert [stage.freezing and (stage.freezing.fall, stage.freezing.level) for stage in stages] == [(None, 0.5)] * 2


def test_planned_shares_the_round_budget_where_every_step_is_to_have_as_many() -> None:
    settings = MethodSettings(name="planned", freezing="equal")
    stages = create_method(settings).stages(_fleet(settings, rounds=31), SUFFIXES, CLIENTS)
    assert [stage.rounds for stage in stages] == [15, 15] and all(stage.freezing is None for stage in stages)


def test_fedpmt_trains_suffixes_of_the_whole_model_and_averages_over_those_who_did() -> None:
    settings = MethodSettings(name="fedpmt")
    clients = alike(BUDGETS, OF_SUFFIXES)
    (stage,) = create_method(settings).stages(_fleet(settings), SUFFIXES, clients)
    assert {c: work.name for c, work in BestHeld().assign(stage, clients).items()} == {
        **{"large": "joint-units1-3", "medium": "grow-units2-3", "small": "head-units0-3"}
    }
    assert stage.held_frozen == "left-out" and stage.rounds == 30
