"""How long a round takes, and how many rounds a step has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.costs import RunCost
from server.fleet.reading import fleet_of
from server.planner.holding import Group
from server.planner.pace import Pace, pace_of
from server.planner.steps import choose_steps
from server.planner.tables import steps_table

COST = RunCost(
    first_unit=0,
    last_unit=1,
    batch=16,
    micro_batch=16,
    arena_bytes=0,
    frozen_bytes=0,
    workspace_bytes_per_thread=0,
    staging_bytes=0,
    upload_bytes=1_250_000,
    download_bytes=5_000_000,
    loads={},
)


def _pace(**changed: Mapping[str, Any]) -> Pace:
    sections: dict[str, Any] = {
        "model": {"name": "cnn", "batch": 16},
        "data": {"sources": ["digits"]},
        "population": {"count": 2},
        "method": {"name": "planned"},
    }
    for name, values in changed.items():
        sections[name] = sections.get(name, {}) | values
    return pace_of(fleet_of(sections, Path("fleet.toml")))


def test_a_round_is_its_steps_and_its_transfers() -> None:
    pace = _pace(training={"steps": 10, "download_mbit": 40.0, "upload_mbit": 10.0})
    assert pace.round_seconds(0.5, COST, 0) == pytest.approx(10 * 0.5 + 1.0 + 1.0)
    assert pace.round_seconds(0.5, None, 0) == pytest.approx(5.0)


def test_a_round_of_epochs_has_the_steps_that_the_examples_make() -> None:
    pace = _pace(training={"epochs": 2}, data={"examples_per_client": 100})
    assert pace.round_seconds(1.0, None, 64) == 8.0
    assert pace.round_seconds(1.0, None, 0) == 12.0
    assert pace.round_seconds(1.0, None, 3) == 2.0


@pytest.mark.parametrize(
    ("training", "method", "freezing", "expected"),
    [
        ({}, {}, {"max_rounds": 30}, [30, 30, 30]),
        ({"rounds": 100}, {}, {"max_rounds": 30}, [30, 30, 40]),
        ({"rounds": 50}, {}, {"max_rounds": 30}, [30, 30, 1]),
        ({"rounds": 100}, {"freezing": "equal"}, {"max_rounds": 30}, [33, 33, 33]),
        ({}, {"freezing": "equal"}, {"max_rounds": 30}, [30, 30, 30]),
    ],
)
def test_steps_last_as_long_as_freezing_lets_them(
    training: dict[str, Any], method: dict[str, Any], freezing: dict[str, Any], expected: list[int]
) -> None:
    pace = _pace(training=training, method={"name": "planned"} | method, freezing=freezing)
    assert pace.schedule(3) == expected


@pytest.mark.parametrize(
    ("rounds", "freezing", "method", "steps"),
    [
        # The rule of movement can end a step in round 8 at the earliest, so that one is taken to last 16.
        (120, {"window": 4, "fit_length": 4, "patience": 2, "max_rounds": 30}, {}, 4),
        (127, {"window": 4, "fit_length": 4, "patience": 2, "max_rounds": 30}, {}, 4),
        (128, {"window": 4, "fit_length": 4, "patience": 2, "max_rounds": 30}, {}, 5),
        (10, {"window": 2, "fit_length": 2, "patience": 2, "max_rounds": 4}, {}, 2),
        (3, {"max_rounds": 30}, {}, 1),
        (120, {"max_rounds": 30}, {"freezing": "equal"}, None),
        (None, {"max_rounds": 30}, {}, None),
    ],
)
def test_half_of_the_rounds_are_for_the_last_step(
    rounds: int | None, freezing: dict[str, Any], method: dict[str, Any], steps: int | None
) -> None:
    training = {} if rounds is None else {"rounds": rounds}
    assert _pace(training=training, freezing=freezing, method={"name": "planned"} | method).most_steps == steps


NEEDS = {end: [*(needs := [20, 50, 90, 99])[end::-1], 1] for end in range(4)}
FEW_HOLD_MUCH = Group.of([20] * 8 + [50, 90], NEEDS)
ONE_HOLDS_MUCH = Group.of([20] * 9 + [90], NEEDS)
HALF_HOLDS_TWO = Group.of([20] * 5 + [50] * 5, NEEDS)


@pytest.mark.parametrize(
    ("group", "rounds", "coverage", "ends", "wanted"),
    [
        (FEW_HOLD_MUCH, 96, None, [0, 1, 2, 3], 0.3),  # room for all that three tenths take
        (FEW_HOLD_MUCH, 95, None, [1, 3], 0.2),  # a tenth would take two steps as well: [0, 3]
        (FEW_HOLD_MUCH, 30, None, [1, 3], 0.2),
        (ONE_HOLDS_MUCH, 95, None, [0, 3], 0.1),
        (FEW_HOLD_MUCH, 30, 0.3, [0, 1, 2, 3], 0.3),  # what somebody asks for holds, however few the rounds are
        (FEW_HOLD_MUCH, None, None, [0, 1, 2, 3], 0.3),
        (HALF_HOLDS_TWO, 30, None, [1, 3], 0.3),  # a tenth would take as many steps
    ],
)
def test_fewer_clients_do_for_a_unit_where_the_rounds_are_few(
    group: Group, rounds: int | None, coverage: float | None, ends: list[int], wanted: float
) -> None:
    freezing = {"window": 4, "fit_length": 4, "patience": 2, "max_rounds": 30}
    pace = _pace(training={} if rounds is None else {"rounds": rounds}, freezing=freezing)
    chosen = choose_steps([group], 4, coverage=coverage, pace=pace)
    assert ([step.last_unit for step in chosen.steps], chosen.wanted) == (ends, wanted)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=20),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(1, 130),
)
def test_the_share_is_the_largest_that_leaves_half_of_the_rounds(
    budgets: list[int], activations: list[int], rounds: int
) -> None:
    units = len(activations)
    needs = {end: [*(sum(activations[first : end + 1]) for first in range(end + 1)), 1] for end in range(units)}
    groups = [Group.of(budgets, needs)]
    freezing = {"window": 4, "fit_length": 4, "patience": 2, "max_rounds": 30}
    pace = _pace(training={"rounds": rounds}, freezing=freezing)
    chosen = choose_steps(groups, units, coverage=None, pace=pace)
    # Against every share that can make a difference.
    shares = [0.1, *(n / len(budgets) for n in range(len(budgets) + 1) if 0.1 < n / len(budgets) < 0.3), 0.3]
    counts = [len(choose_steps(groups, units, coverage=share, pace=pace).steps) for share in shares]
    assert pace.most_steps is not None
    most = max(pace.most_steps, counts[0])
    assert len(chosen.steps) <= most
    assert chosen.steps == choose_steps(groups, units, coverage=chosen.wanted, pace=pace).steps
    assert [share for share, count in zip(shares, counts, strict=True) if share > chosen.wanted and count <= most] == []


def test_what_it_takes_is_shown() -> None:
    groups = [Group.of([12] * 4, {0: [10, 5], 1: [10, 8, 5]}, {0: [60.0, 1.0], 1: [90.0, 1.0, 1.0]})]
    chosen = choose_steps(groups, 2, coverage=0.5, pace=_pace(freezing={"max_rounds": 40}))
    shown = steps_table(chosen, ["stem", "head"])
    assert "s a round" in shown.splitlines()[0]
    assert (
        shown.splitlines()[-1]
        == "predicted: at most 60 minutes for a client slower than nine of ten, with its transfers"
    )
    without = choose_steps([Group.of([12] * 4, {0: [10, 5], 1: [10, 8, 5]})], 2, coverage=0.5, pace=_pace())
    assert "round" not in steps_table(without, ["stem", "head"])
