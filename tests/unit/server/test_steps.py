"""The choice of steps, against every set of steps there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.errors import ExecutionError, UsageError
from server.planner.holding import Group, Step, first_held, step_of
from server.planner.pace import Pace
from server.planner.steps import Steps, choose_steps, given_steps, steps_again


def needs_of(activations: list[int], weights: list[int], head: int = 1) -> dict[int, list[int]]:
    """A simple model of memory: what is trained keeps activations and three times its weights, the rest its weights."""
    return {
        end: [
            sum(activations[first : end + 1]) + 3 * sum(weights[first : end + 1]) + sum(weights[:first]) + head
            for first in range(end + 2)
        ]
        for end in range(len(activations))
    }


sizes = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 10)), min_size=1, max_size=6)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Group], int]:
    """One or two groups of clients with needs of their own, and how many units their model has."""
    units = draw(st.integers(1, 6))
    groups = []
    for _ in range(draw(st.integers(1, 2))):
        row = st.lists(st.integers(1, 60), min_size=1, max_size=8)
        needs = {end: draw(st.lists(st.integers(1, 60), min_size=end + 2, max_size=end + 2)) for end in range(units)}
        seconds = {end: draw(st.lists(st.integers(0, 9), min_size=end + 2, max_size=end + 2)) for end in range(units)}
        groups.append(Group.of(draw(row), needs, seconds))
    return groups, units


def holds(steps: list[Step], needed: list[float]) -> bool:
    """Whether every unit lies in a run, up to the end of some step, whose units all get what they need."""
    trained: set[int] = set()
    for step in steps:
        for first in range(step.last_unit + 1):
            if all(step.coverage[unit] >= needed[unit] for unit in range(first, step.last_unit + 1)):
                trained |= set(range(first, step.last_unit + 1))
    return trained == set(range(len(needed)))


paces = st.builds(
    Pace,
    local_steps=st.just(1),
    download=st.just(1.0),
    upload=st.just(1.0),
    most_rounds=st.none() | st.integers(1, 9),
    rounds=st.none() | st.integers(1, 20),
)


def cost(steps: list[Step] | tuple[Step, ...], pace: Pace) -> tuple[int, int, float]:
    """As the docs have it: a step lasts `most_rounds`, the last one what remains of `rounds`; or all the same."""
    if pace.most_rounds is None:
        rounds = [1] * len(steps)
    else:
        rounds = [pace.most_rounds] * len(steps)
        if pace.rounds is not None:
            rounds[-1] = max(1, pace.rounds - sum(rounds[:-1]))
    seconds = sum((step.seconds or 0.0) * count for step, count in zip(steps, rounds, strict=True))
    return len(steps), sum(s.clients - s.working for s in steps), seconds


@settings(deadline=None)
@given(fleets(), st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0]), paces)
def test_no_set_of_steps_is_better(fleet: tuple[list[Group], int], coverage: float, pace: Pace) -> None:
    groups, units = fleet
    every = [step_of(groups, end) for end in range(units)]
    if not any(step.working for step in every):
        with pytest.raises(
            ExecutionError, match=r"^none of \d+ clients holds any part of the model; give clients more"
        ):
            choose_steps(groups, units, coverage=coverage)
        return
    needed = [min(coverage, step.coverage[-1]) for step in every]
    sets = [[*inner, units - 1] for size in range(units) for inner in combinations(range(units - 1), size)]
    candidates = [[every[end] for end in ends] for ends in sets]
    best = min(cost(steps, pace) for steps in candidates if holds(steps, needed))
    chosen = choose_steps(groups, units, coverage=coverage, pace=pace)
    assert holds(list(chosen.steps), needed)
    assert cost(chosen.steps, pace) == best
    assert [step.rounds for step in chosen.steps] == pace.schedule(len(chosen.steps))


@given(fleets())
def test_the_steps_are_blocks_without_a_gap(fleet: tuple[list[Group], int]) -> None:
    groups, units = fleet
    if not any(step_of(groups, end).working for end in range(units)):
        return
    chosen = choose_steps(groups, units, coverage=0.3)
    blocks = chosen.partition.blocks
    assert [unit for b in blocks for unit in range(b.first_unit, b.last_unit + 1)] == list(range(units))
    assert [b.index for b in blocks] == list(range(1, len(blocks) + 1))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.lists(st.integers(0, 60), min_size=1, max_size=20))
def test_the_first_that_is_held_is_the_first_within_the_budget(needs: list[int], budgets: list[int]) -> None:
    found = first_held(np.array(needs), np.array(budgets))
    expected = [next((i for i, need in enumerate(needs) if need <= budget), len(needs)) for budget in budgets]
    assert found.tolist() == expected


@given(sizes, st.integers(0, 400), st.integers(0, 400))
def test_more_memory_never_means_less_work(model: list[tuple[int, int]], one: int, other: int) -> None:
    needs = needs_of([a for a, _ in model], [w for _, w in model])
    for row in needs.values():
        less, more = first_held(np.array(row), np.array(sorted((one, other))))
        assert more <= less


@given(sizes, st.lists(st.integers(0, 400), min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_change_the_plan(model, budgets, random) -> None:  # type: ignore[no-untyped-def]
    needs = needs_of([a for a, _ in model], [w for _, w in model])
    budgets = [*budgets, 10_000]
    shuffled = list(budgets)
    random.shuffle(shuffled)
    plans = [choose_steps([Group.of(b, needs)], len(model), coverage=0.2) for b in (budgets, shuffled)]
    assert plans[0] == plans[1]


def test_one_step_where_enough_hold_everything() -> None:
    needs = needs_of([40, 30, 20, 10], [1, 2, 4, 8])
    rich, poor = 200, 30
    chosen = choose_steps([Group.of([rich] * 2 + [poor] * 18, needs)], 4, coverage=0.1)
    assert [step.last_unit for step in chosen.steps] == [3]
    assert chosen.coverage[0] == 0.1
    assert chosen.short == ()


def test_a_fleet_that_cannot_train_the_first_unit_with_the_others_grows() -> None:
    needs = needs_of([40, 30, 20, 10], [1, 2, 4, 8])
    chosen = choose_steps([Group.of([80] * 10, needs)], 4, coverage=0.5)
    assert len(chosen.steps) == 2
    assert min(chosen.coverage) >= 0.5


def test_a_unit_that_nobody_can_train_stays_and_is_told() -> None:
    needs = needs_of([400, 30, 20, 10], [1, 2, 4, 8])
    chosen = choose_steps([Group.of([120] * 10, needs)], 4, coverage=0.5)
    assert chosen.short == (0,)
    assert chosen.reachable[0] == 0.0
    assert [step.last_unit for step in chosen.steps] == [3]


def test_a_coverage_out_of_reach_becomes_the_best_there_is() -> None:
    needs = needs_of([100, 10], [0, 0])
    groups = [Group.of([120] + [50] * 9, needs)]
    chosen = choose_steps(groups, 2, coverage=0.5)
    assert chosen.short == (0,)
    assert chosen.coverage == (0.1, 1.0)


def test_too_few_steps_are_refused_with_the_number_it_takes() -> None:
    needs = needs_of([40, 30, 20, 10], [1, 2, 4, 8])
    with pytest.raises(UsageError, match=r"^--steps 1: it takes 2 steps .*; allow more steps, or ask for a smaller"):
        choose_steps([Group.of([80] * 10, needs)], 4, coverage=0.5, most=1)


def test_the_faster_of_two_cuts_with_the_same_work_is_taken() -> None:
    needs = {0: [10, 5], 1: [10, 8, 5], 2: [30, 20, 9, 5]}

    def cut(seconds: dict[int, list[float]]) -> Steps:
        return choose_steps([Group.of([12] * 4, needs, seconds)], 3, coverage=0.5)

    slow_first = cut({0: [9.0, 1.0], 1: [1.0, 1.0, 1.0], 2: [1.0, 1.0, 1.0, 1.0]})
    assert [step.last_unit for step in slow_first.steps] == [1, 2]
    assert slow_first.steps[0].seconds == 1.0


def test_the_slowest_tenth_does_not_set_the_time_of_a_round() -> None:
    needs = {0: [10, 1]}
    groups = [Group.of([5] * 19, needs, {0: [100.0, 3.0]}), Group.of([10], needs, {0: [100.0, 3.0]})]
    assert step_of(groups, 0).seconds == 3.0


def test_a_round_takes_as_long_as_the_variants_that_clients_take() -> None:
    needs, tried, seconds = {0: [20, 10]}, {0: [40, 20, 10]}, {0: [1.0, 5.0, 0.5]}
    for budgets, expected in (([50, 50], 1.0), ([50, 20], 5.0), ([50, 12], 1.0), ([12, 5], 0.5), ([5], None)):
        assert step_of([Group.of(budgets, needs, seconds, tried=tried)], 0).seconds == expected


def test_steps_by_hand_are_described_as_they_are() -> None:
    needs = needs_of([40, 30, 20, 10], [1, 2, 4, 8])
    given_ones = given_steps([Group.of([80] * 10, needs)], [1, 3], coverage=0.5)
    assert [step.last_unit for step in given_ones.steps] == [1, 3]
    assert given_ones.coverage[3] == 1.0


@settings(deadline=None)
@given(fleets(), st.integers(1, 6), st.sampled_from([0.1, 0.5, 1.0]), paces)
def test_so_many_steps_are_the_best_of_as_many(
    fleet: tuple[list[Group], int], count: int, coverage: float, pace: Pace
) -> None:
    groups, units = fleet
    every = [step_of(groups, end) for end in range(units)]
    if not any(step.working for step in every):
        return
    if count > units:
        with pytest.raises(UsageError, match=rf"^--blocks {count}: the model has {units} units; give a number from 1"):
            choose_steps(groups, units, coverage=coverage, count=count)
        return

    def quality(ends: list[int]) -> tuple[float, int, float]:
        starts = [0, *(end + 1 for end in ends[:-1])]
        own = [min(every[end].coverage[start : end + 1]) for start, end in zip(starts, ends, strict=True)]
        _, idle, seconds = cost([every[end] for end in ends], pace)
        return -min(coverage, *own), idle, seconds

    sets = [[*inner, units - 1] for inner in combinations(range(units - 1), count - 1)]
    chosen = choose_steps(groups, units, coverage=coverage, count=count, pace=pace)
    assert quality([step.last_unit for step in chosen.steps]) == min(map(quality, sets))


def _same_ends(first: Steps, second: Steps) -> bool:
    return [step.last_unit for step in first.steps] == [step.last_unit for step in second.steps]


@settings(deadline=None)
@given(fleets(), st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0]), st.data())
def test_for_the_clients_that_they_were_chosen_for_the_steps_stay_whenever_they_are_chosen_again(
    fleet: tuple[list[Group], int], coverage: float, data: st.DataObject
) -> None:
    groups, units = fleet
    try:
        steps = choose_steps(groups, units, coverage=coverage)
    except ExecutionError:
        return
    done = data.draw(st.integers(0, len(steps.steps) - 1))
    try:
        assert steps_again(groups, steps, done) == steps
    except ExecutionError as error:
        assert "what remains" in str(error)


@settings(deadline=None)
@given(fleets(), fleets(), st.sampled_from([0.05, 0.3, 1.0]), st.integers(1, 6))
def test_finished_steps_stay_and_those_that_remain_are_the_best_for_who_is_there(
    fleet: tuple[list[Group], int], other: tuple[list[Group], int], coverage: float, most: int
) -> None:
    (before, units), now = fleet, other[0]
    if other[1] < units:
        return
    try:
        steps = choose_steps(before, units, coverage=coverage)
        done = (len(steps.steps) - 1) // 2
        again = steps_again(now, steps, done, most=most)
    except ExecutionError:
        return
    ends = [step.last_unit for step in again.steps]
    assert ends[:done] == [step.last_unit for step in steps.steps[:done]] and ends[-1] == units - 1
    assert again.steps == tuple(step_of(now, end) for end in ends)
    start = ends[done - 1] + 1 if done else 0
    every = [step_of(now, end) for end in range(units)]
    needed = [0.0] * start + [min(coverage, step.coverage[-1]) for step in every[start:]]
    rest = len(steps.steps) - done
    reached = [
        count + 1
        for count in range(units - start)
        for chosen in combinations(range(start, units - 1), count)
        if holds([every[end] for end in (*chosen, units - 1)], needed)
    ]
    fewest = min(reached)
    assert len(ends) - done == fewest or len(ends) - done == min(most, rest, fewest) or _same_ends(again, steps)
    assert len(ends) - done <= max(most, rest)


def test_steps_that_somebody_gave_stay() -> None:
    needs = needs_of([8, 8, 8, 8], [1, 1, 1, 1])
    steps = given_steps([Group.of([60], needs)], [0, 1, 2, 3], coverage=0.5)
    assert _same_ends(steps_again([Group.of([60], needs)], steps, 1, given=True), steps)
    assert len(steps_again([Group.of([60], needs)], steps, 1).steps) == 2
