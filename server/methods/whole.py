"""Training the whole network at once: by everybody, or by those alone whose memory holds it."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.model import Partition
from device_profiles.work import Whole, Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet, MethodSettings
from server.methods.method import Stage, budget_of

_WHOLE = Whole()


class ExclusiveFL:
    """Only clients that hold the whole network take part.

    Clients of a round are drawn among these; where they are fewer than `training.clients_per_round`, all of them train.
    """

    name = "exclusivefl"
    source = "the baseline of that name in Wu, Li, Xu, KDD 2025"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """The whole network."""
        return (_WHOLE,)

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        return (_train(budget_of(fleet, self.name)),)

    def final(self, partition: Partition) -> Work:
        """The whole network."""
        return _WHOLE


class FedAvg(ExclusiveFL):
    """Everybody trains the whole network, whatever memory there is: the upper bound."""

    name = "fedavg"
    source = "McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017"

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget, without a look at memory."""
        return (_train(budget_of(fleet, self.name), ignores_memory=True),)


def _train(rounds: int, *, ignores_memory: bool = False) -> Stage:
    return Stage(
        name="train", block=0, choices=(_WHOLE,), evaluated=_WHOLE, rounds=rounds, ignores_memory=ignores_memory
    )
