"""Asks clients for the work of one round, as often as it takes: until enough deliver, and their training holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from device_profiles.task import Result, Task
from device_profiles.work import Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.fleet.structure import Structure
from server.judging.judging import judge
from server.methods.method import Stage
from server.planner.assignment import Planner
from server.rounds.attempts import Attempts
from server.rounds.client_states import ClientStates
from server.rounds.collecting import Collector
from server.rounds.frozen_prefixes import FrozenPrefixes
from server.rounds.run_state import Weights
from server.rounds.tasks import RoundPlace, asked_of, attempt_number, drawn_clients, make_task


class Asking:
    """The attempts at the rounds of a run.

    Where more than half of those that trained in an attempt have diverged, the round is tried again from the same
    weights with half the learning rate, which then stays so for the rest of the stage. With differential privacy it is
    not: what other clients are asked for must not depend on anybody's data.
    """

    def __init__(
        self,
        fleet: Fleet,
        structure: Structure,
        planner: Planner,
        collector: Collector,
        prefixes: FrozenPrefixes,
        states: ClientStates,
        told: Callable[[Result, int, int], None],
    ) -> None:
        """`told` hears each result, its number in the attempt and how many are asked."""
        self._fleet = fleet
        self._structure = structure
        self._planner = planner
        self._collector = collector
        self._prefixes = prefixes
        self._states = states
        self._told = told

    def ask(self, place: RoundPlace, weights: Weights) -> Attempts:
        """The attempts at one round, up to the first in which enough deliver."""
        training, stage, state = self._fleet.training, place.stage, place.state
        attempts = Attempts(rate_halvings=place.rate_halvings)
        for attempt in range(training.attempts):
            attempts.late += self._collector.settle(partial(self._enough, stage))
            self._states.drop_after(state.round)
            clients = self._collector.roster.clients
            assigned = self._planner.assign(stage, clients)
            tasks = self._tasks(place, clients, assigned, attempt)
            attempts.start(assigned, tasks, len(clients))
            answers = self._collector.collect(
                tasks,
                self._counting(len(tasks)),
                partial(self._states.put, state.round + 1),
                wanted=training.clients_per_round if training.spare else None,
            )
            attempts.results = answers.results
            attempts.late += answers.late
            self._prefixes.answered(state.stage, {task.client: task.work for task in tasks}, answers.results)
            asked = asked_of(self._fleet, clients, tasks)
            robust = training.aggregation == "robust"
            attempts.accepted, attempts.rejected = judge(
                answers.updates, asked, self._structure, place.version, weights, robust=robust
            )
            if attempts.mostly_diverged() and self._fleet.privacy is None:
                attempts.rate_halvings += 1
                place = replace(place, rate_halvings=attempts.rate_halvings)
            elif len(attempts.accepted) >= training.min_clients:
                break
        return attempts

    def _enough(self, stage: Stage) -> bool:
        return len(self._planner.assign(stage, self._collector.roster.clients)) >= self._fleet.training.min_clients

    def _tasks(
        self, place: RoundPlace, clients: Sequence[Client], assigned: Mapping[str, Work], attempt: int
    ) -> list[Task]:
        number = attempt_number(self._fleet, place.state, attempt)
        there = {client.name: client for client in clients}
        tasks = []
        for client in drawn_clients(self._fleet, assigned, number):
            prefix = self._prefixes.name(place.state.stage, assigned[client], assigned)
            task = make_task(self._fleet, place, there[client], assigned[client], number)
            had = self._prefixes.had_by(client, prefix)
            tasks.append(replace(task, prefix=prefix, has_frozen=had, state=self._states.path(client)))
        return tasks

    def _counting(self, clients: int) -> Callable[[Result], None]:
        """Tells each result, with how many there are."""
        numbers = itertools.count(1)
        return lambda result: self._told(result, next(numbers), clients)
