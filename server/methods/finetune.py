"""Fine-tuning: the last units of a pretrained network, or adapters of all, trained by whoever holds the step."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.model import Partition
from device_profiles.work import Work, grow
from server.fleet.client import Client
from server.fleet.fleet import Fleet, MethodSettings
from server.methods.method import Stage, budget_of


class FineTune:
    """Every client that holds it trains the units of `model.train_units`, which are the last block, and the head; units
    before stay as they are all through the run."""

    name = "finetune"
    source = "FedAvg (McMahan et al., AISTATS 2017) of a network's last units"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """The last block."""
        return (self.final(partition),)

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        last = len(partition.blocks)
        step = grow(partition, last)
        return (Stage(name="grow", block=last, choices=(step,), evaluated=step, rounds=budget_of(fleet, self.name)),)

    def final(self, partition: Partition) -> Work:
        """The whole model."""
        return grow(partition, len(partition.blocks))
