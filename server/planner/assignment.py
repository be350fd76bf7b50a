"""Who does what in a round: asked anew every round, of the clients that are there."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import inf
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
        # Clients that are alike share their needs: these are put in order once, not for each of ten thousand clients.
        falling: dict[int, list[float]] = {}
        assigned = {}
        for client in clients:
            needs = falling.get(id(client.needs))
            if needs is None:
                needs = falling[id(client.needs)] = _falling(client.needs, stage.choices)
            at = bisect_left(needs, -client.budget_bytes)
            if at < len(needs):
                assigned[client.name] = stage.choices[at]
        return assigned


def _falling(needs: Mapping[str, int], choices: Sequence[Work]) -> list[float]:
    """For each choice, the least that it or one before it needs, negated so that the list rises: the first of them that
    a budget holds is the first choice that it holds."""
    return [-least for least in accumulate((needs.get(work.name, inf) for work in choices), min)]
