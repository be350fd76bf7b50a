"""A plan for the clients of a fleet file, of which there may be a million, from the promises of a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from device_profiles.model import Partition
from device_profiles.promise import with_margin
from server.engines.simulation.promises import needs_in, needs_of_runs
from server.fleet.fleet import Fleet
from server.fleet.population import name_runs
from server.planner.fleet_plan import Clients, FleetPlan, Kind, plan_fleet
from server.planner.pace import pace_of
from server.planner.run_programs import RunPrograms


def plan_of_fleet(fleet: Fleet) -> tuple[FleetPlan, Clients, tuple[str, ...]]:
    """The plan, the clients in columns, and the names of the model's units. Clients differ by their budgets alone, and
    are grouped by the classes of their population. The blocks of the fleet's own partition are its steps, where there
    is one.

    Raises ExecutionError where no client holds anything.
    """
    programs = RunPrograms(fleet.model, fleet.training)
    units, given = programs.units, fleet.model.partition
    with_margins = _with_margins(fleet, needs_of_runs(fleet, len(units)))
    population = fleet.population
    runs = () if population is None else name_runs(population, fleet.classes)
    kinds = [Kind(name=kind.name, needs=with_margins) for kind in fleet.classes] or [_any(with_margins)]
    clients = Clients(
        budgets=fleet.budgets,
        kinds=np.repeat(np.arange(len(kinds)), [run.count for run in runs] or [fleet.client_count]),
        runs=runs,
        names=tuple(client.name for client in fleet.named),
    )
    plan = plan_fleet(
        kinds,
        clients,
        len(units),
        coverage=fleet.method.coverage,
        given=None if given is None else programs.partition(given),
        exact=lambda partition: _in_steps(fleet, kinds, partition),
        pace=pace_of(fleet),
    )
    plan.steps.check_work()
    return plan, clients, units


def _in_steps(fleet: Fleet, kinds: Sequence[Kind], partition: Partition) -> Sequence[Kind]:
    if len(partition.blocks) == 1:
        return kinds  # nothing lies behind the step
    needs = _with_margins(fleet, needs_in(fleet, partition))
    return [Kind(name=kind.name, needs=needs) for kind in kinds]


def _with_margins(fleet: Fleet, needs: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    return {end: [with_margin(promise, fleet.margin) for promise in row] for end, row in needs.items()}


def _any(needs: Mapping[int, Sequence[int]]) -> Kind:
    return Kind(name="any", needs=needs)
