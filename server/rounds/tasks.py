"""The tasks of one attempt at a round: who is drawn, and what each is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_profiles.task import Task
from device_profiles.work import Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.judging.judging import Asked
from server.methods.method import Stage
from server.rounds.learning_rate import learning_rate
from server.rounds.run_state import RunState


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlace:
    """Where in a run a round is.

    Attributes:
        rounds: the most that its stage has.
        state: of the run before it.
        weights: the file that it starts from.
        server_state: one of what the server's optimizer keeps, None where that is nothing.
        rate_halvings: how often the learning rate has been halved, because clients diverged.
    """

    stage: Stage
    rounds: int
    state: RunState
    weights: Path
    server_state: Path | None = None
    rate_halvings: int = 0

    @property
    def version(self) -> str:
        """What the weights that it starts from are called."""
        return f"{self.state.round}-{self.state.weights_sha256[:16]}"


def attempt_number(fleet: Fleet, state: RunState, attempt: int) -> int:
    """Which attempt of the run it is, the same for the same run."""
    return state.round * fleet.training.attempts + attempt


def drawn_clients(fleet: Fleet, assigned: Mapping[str, Work], number: int) -> list[str]:
    """The clients of attempt `number`, in the order of `assigned`: drawn anew every time, the same for a run."""
    clients, wanted = list(assigned), fleet.training.clients_per_round
    if wanted is None or (wanted := wanted + fleet.training.spare) >= len(clients):
        return clients
    chosen = np.random.default_rng([fleet.training.seed, number]).choice(len(clients), wanted, replace=False)
    return [clients[position] for position in sorted(chosen)]


_OF_DEADLINE = 0.8
"""The part of a round's deadline that local steps may take; the rest is for starts, transfers and wrong predictions."""


def make_task(fleet: Fleet, place: RoundPlace, client: Client, work: Work, number: int) -> Task:
    """What a client is asked for in attempt `number`: fewer steps, where it could not keep the deadline with all."""
    steps = _steps_in_time(fleet, client, work)
    training, stage, state = fleet.training, place.stage, place.state
    base = training.learning_rate if stage.learning_rate is None else stage.learning_rate
    # The ramp of DepthFL's published code: full weight after the first half of the rounds.
    ramp = min(1.0, 2.0 * state.round_of_stage / place.rounds)
    return Task(
        client=client.name,
        work=work,
        weights=place.weights,
        base_version=place.version,
        steps=steps,
        epochs=training.epochs if steps is None else None,
        learning_rate=learning_rate(training, base, state.round_of_stage, place.rounds) * 0.5**place.rate_halvings,
        seed=training.seed * 1_000_003 + number,
        attempt=number,
        proximal=training.proximal,
        server_state=place.server_state,
        consistency=stage.consistency * float(np.exp(-5.0 * (1.0 - ramp) ** 2)),
    )


def _steps_in_time(fleet: Fleet, client: Client, work: Work) -> int | None:
    """Local steps, at least one, that the client does before the deadline; None for all of its epochs."""
    training, seconds = fleet.training, client.step_seconds.get(work.name)
    every = training.steps if training.epochs is None else None
    if training.deadline_seconds is None or not seconds:
        return every
    possible = max(1, int(_OF_DEADLINE * training.deadline_seconds / seconds))
    wanted = _wanted_steps(fleet, client.examples)
    return every if wanted is not None and possible >= wanted else possible


def asked_of(fleet: Fleet, clients: Sequence[Client], tasks: Sequence[Task]) -> dict[str, Asked]:
    """What updates are held to, by client."""
    examples = {client.name: client.examples for client in clients}
    return {task.client: _asked(fleet, task, examples.get(task.client)) for task in tasks}


def _asked(fleet: Fleet, task: Task, examples: int | None) -> Asked:
    wanted = _wanted_steps(fleet, examples)
    steps = task.steps
    if steps is None and examples is not None:
        steps = (task.epochs or 0) * (examples // fleet.model.batch)
    share = 1.0 if task.steps is None or not wanted else min(1.0, task.steps / wanted)
    return Asked(work=task.work, batch=fleet.model.batch, examples=examples, steps=steps, share=share)


def _wanted_steps(fleet: Fleet, examples: int | None) -> int | None:
    """Local steps of a round as the fleet file asks for them; None where only the client knows."""
    training = fleet.training
    if training.epochs is None:
        return training.steps
    return None if examples is None else training.epochs * (examples // fleet.model.batch)
