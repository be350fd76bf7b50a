"""Who hears how a run goes."""

from __future__ import annotations

from device_profiles.task import Result
from server.methods.method import Stage
from server.rounds.records import RoundRecord


class Observer:
    """Hears how the run goes; the default keeps silent."""

    def stage_started(self, stage: Stage, rounds: int, clients: int) -> None:
        """A stage of at most `rounds` rounds starts or goes on; `clients` of those that are there have work in it."""

    def client_done(self, result: Result, done: int, clients: int) -> None:
        """One client of the round has answered."""

    def round_done(self, record: RoundRecord) -> None:
        """A round is finished and saved."""
