"""Who does what in a round: asked anew every round, of the clients that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from device_profiles.work import Work
from server.fleet.client import Client
from server.methods.method import Stage


class Planner(Protocol):
    """Chooses among what a stage allows."""

    def assign(self, stage: Stage, clients: Sequence[Client]) -> Mapping[str, Work]:
        """One of `stage.choices` for each client that has work, by name and in the order of `clients`.

        The same clients get the same work, or a run that is resumed would not go on as it was.
        """


class BestHeld:
    """Every client does the best of a stage's choices whose promise it holds, and nothing where it holds none."""

    def assign(self, stage: Stage, clients: Sequence[Client]) -> Mapping[str, Work]:
        """The first of the stage's choices that each client holds."""
        if stage.ignores_memory:
            return {client.name: stage.choices[0] for client in clients}
        held = {client.name: client.first_held(stage.choices) for client in clients}
        return {name: work for name, work in held.items() if work is not None}
