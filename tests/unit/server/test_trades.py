"""A plan in which work may be done in variants: what holds for every client, whatever the fleet is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from device_profiles.errors import ExecutionError
from device_profiles.files import read_json, write_json
from device_profiles.trades import TRADES, Trade
from device_profiles.work import Growing, first_trained_unit, suffixes
from server.fleet.population import NameRun
from server.planner.fleet_plan import Clients, FleetClass, FleetPlan, Kind, plan_fleet
from server.planner.fleet_tables import fleet_table, why

Does = tuple[Growing | None, Trade, int | None]


@st.composite
def kinds(draw: st.DrawFn) -> list[Kind]:
    """One or two kinds of device for a model of one to five units, where some work has no program or several."""
    units = draw(st.integers(1, 5))
    own = st.dictionaries(st.sampled_from(TRADES), st.integers(1, 60), max_size=4)
    found = []
    for number in range(draw(st.integers(1, 2))):
        trades = {end: [_in_order(draw(own)) for _ in range(end + 2)] for end in range(units)}
        needs = {end: [min(row.values(), default=1 << 62) for row in rows] for end, rows in trades.items()}
        found.append(Kind(name=f"kind{number}", needs=needs, trades=trades))
    return found


def _in_order(row: dict[Trade, int]) -> dict[Trade, int]:
    return {trade: row[trade] for trade in TRADES if trade in row}


fleets = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 1)), min_size=1, max_size=12)


def planned(kinds: list[Kind], fleet: list[tuple[int, int]], coverage: float) -> FleetPlan:
    clients = Clients(
        budgets=np.array([budget for budget, _ in fleet]),
        kinds=np.array([kind % len(kinds) for _, kind in fleet]),
        runs=(NameRun(prefix="client", count=len(fleet)),),
    )
    try:
        return plan_fleet(kinds, clients, len(kinds[0].needs), coverage=coverage)
    except ExecutionError:
        assume(False)
        raise


def does(plan: FleetPlan, client: int) -> list[Does]:
    one: FleetClass = plan.classes[plan.column[client]]
    return [(work, one.trade(step), one.promised_bytes[step]) for step, work in enumerate(one.works)]


@settings(deadline=None)
@given(kinds(), fleets, st.sampled_from([0.0, 0.3, 1.0]))
def test_a_client_does_the_longest_work_in_the_first_trade_that_it_holds(
    kinds: list[Kind], fleet: list[tuple[int, int]], coverage: float
) -> None:
    plan = planned(kinds, fleet, coverage)
    plan.check("plan")
    for client, (budget, kind) in enumerate(fleet):
        trades = kinds[kind % len(kinds)].trades
        for number, step in enumerate(plan.steps.steps, start=1):
            works = suffixes(plan.steps.partition, number)
            held = [
                (work, trade, need)
                for work, row in zip(works, trades[step.last_unit], strict=True)
                for trade, need in row.items()
                if need <= budget
            ]
            assert does(plan, client)[number - 1] == (held[0] if held else (None, "default", None))


@settings(deadline=None)
@given(kinds(), fleets)
def test_the_units_are_in_steps_without_a_gap(kinds: list[Kind], fleet: list[tuple[int, int]]) -> None:
    plan = planned(kinds, fleet, 0.3)
    units = [u for b in plan.steps.partition.blocks for u in range(b.first_unit, b.last_unit + 1)]
    assert units == list(range(len(kinds[0].needs)))
    for step, own in enumerate(plan.steps.steps):
        firsts = [does(plan, client)[step][0] for client in range(len(fleet))]
        trained = [range(first_trained_unit(work), own.last_unit + 1) for work in firsts if work is not None]
        shares = [sum(unit in run for run in trained) / len(fleet) for unit in range(own.last_unit + 1)]
        assert np.allclose(shares, own.coverage)


@settings(deadline=None)
@given(kinds(), fleets)
def test_more_memory_never_means_less_work(kinds: list[Kind], fleet: list[tuple[int, int]]) -> None:
    plan = planned(kinds, fleet, 0.3)
    order = sorted(range(len(fleet)), key=lambda client: fleet[client][0])
    for step in range(len(plan.steps.steps)):
        longest: dict[int, float] = {}
        for client in order:
            work = does(plan, client)[step][0]
            first = float("inf") if work is None else first_trained_unit(work)
            kind = fleet[client][1] % len(kinds)
            assert first <= longest.get(kind, first)
            longest[kind] = first


@settings(deadline=None)
@given(kinds(), fleets, st.tuples(st.integers(0, 70), st.integers(0, 1)))
def test_another_client_changes_nobodys_work_in_the_same_steps(
    kinds: list[Kind], fleet: list[tuple[int, int]], more: tuple[int, int]
) -> None:
    plan, larger = planned(kinds, fleet, 0.3), planned(kinds, [*fleet, more], 0.3)
    there = {step.last_unit: number for number, step in enumerate(larger.steps.steps)}
    for number, step in enumerate(plan.steps.steps):
        if step.last_unit in there:
            for client in range(len(fleet)):
                one, other = does(plan, client)[number], does(larger, client)[there[step.last_unit]]
                assert one[1:] == other[1:]
                assert one[0] is other[0] is None or (
                    one[0] is not None
                    and other[0] is not None
                    and first_trained_unit(one[0]) == first_trained_unit(other[0])
                )
    for client, (budget, _) in enumerate([*fleet, more]):
        assert all(promised is None or promised <= budget for _, _, promised in does(larger, client))


@settings(deadline=None)
@given(kinds(), fleets)
def test_the_same_fleet_has_the_same_plan(kinds: list[Kind], fleet: list[tuple[int, int]]) -> None:
    assert planned(kinds, fleet, 0.3) == planned(kinds, fleet, 0.3)


KIND = Kind(
    name="board",
    needs={0: [20, 10]},
    trades={0: [{"default": 40, "recompute": 30, "micro4": 20}, {"default": 10}]},
)


def test_variants_are_kept_and_named(tmp_path: Path) -> None:
    plan = planned([KIND], [(45, 0), (35, 0), (25, 0), (15, 0), (5, 0)], 0.0)
    write_json(tmp_path / "plan.json", plan)
    assert read_json(tmp_path / "plan.json", FleetPlan) == plan
    assert [trade for _, trade in plan.programs] == ["default", "micro4", "recompute", "default"]
    assert [does(plan, client)[0][1] for client in range(5)] == ["default", "recompute", "micro4", "default", "default"]
    assert [one.trades for one in plan.classes] == [(), (), ("micro4",), ("recompute",), ()]
    table = fleet_table(plan)
    assert "0: 0.1 recompute" in table and "'micro4': the batch is trained in four parts" in table
    assert "bfloat16" not in table
    assert "trains from unit 0 stem (recompute), promised" in why(plan, "client001", ("stem",))
    plain = fleet_table(planned([KIND], [(45, 0)], 0.0))
    assert "recompute" not in plain
