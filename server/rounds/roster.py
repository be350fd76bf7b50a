"""The clients that are there, as the engine's events change them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from server.fleet.client import Client
from server.rounds.seam import BudgetChanged, Joined, Left


class Roster:
    """Who is there, in the order in which they are asked: those of the start, then those that joined.

    It is no part of a run's state: a run that is resumed asks its engine who is there.
    """

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = {client.name: client for client in clients}
        self._seen = dict(self._clients)

    @property
    def clients(self) -> tuple[Client, ...]:
        """Those that are there."""
        return tuple(self._clients.values())

    @property
    def seen(self) -> tuple[Client, ...]:
        """Everybody who was ever there, each as last known."""
        return tuple(self._seen.values())

    def apply(self, event: Joined | Left | BudgetChanged) -> None:
        """Follow a change; one that is about somebody who is not there changes nothing."""
        if isinstance(event, Left):
            self._clients.pop(event.client, None)
            return
        if isinstance(event, Joined):
            client = event.client
        elif event.client in self._clients:
            client = event.planned or replace(self._clients[event.client], budget_bytes=event.budget_bytes)
        else:
            return
        self._clients[client.name] = client
        self._seen[client.name] = client
