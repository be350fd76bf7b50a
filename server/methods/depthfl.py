"""DepthFL: every client trains as many of the first blocks as it holds, with a classifier behind each."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.model import Partition
from device_profiles.work import Work, depth
from server.fleet.client import Client
from server.fleet.fleet import Fleet, MethodSettings
from server.methods.method import Stage, best_held, budget_of


class DepthFL:
    """Classifiers of one client learn from each other (self-distillation); the model answers with their mean.

    A client sums the cross-entropies of its classifiers and adds, for each, the mean Kullback-Leibler divergence from
    the others, weighted by a ramp over the rounds: exp(-5 (1 - r)^2), where r rises from 0 to 1 over the first half of
    the run's rounds and stays there.

    What differs from the published method, as Flower's baseline of it has it: a classifier behind an inner block is
    global pooling and one linear layer (the last one is the model's own head), where the published ones have an
    attention module and a chain of bottlenecks of separable convolutions before the linear layer; there is no FedDyn,
    neither its term in the loss nor its server step, but FedAvg weighted by examples; the model answers with the mean
    of the classifiers' probabilities, where the published one takes that of the logits; the ramp, of the same form
    there, ends after 300 rounds whatever the run's length.
    """

    name = "depthfl"
    source = "Kim, Yu, Kim, Moon, DepthFL: Depthwise Federated Learning for Heterogeneous Clients, ICLR 2023"
    by_class = "compares the probabilities that its classifiers give to the classes"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings
        self._deepest: Work | None = None

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every depth, the deepest first."""
        return tuple(depth(partition, block.index) for block in reversed(partition.blocks))

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        depths = self.works(partition)
        # Deeper ones have blocks and a classifier that nobody trains.
        self._deepest = best_held(depths, clients)
        return (
            Stage(
                name="train",
                block=0,
                choices=depths,
                evaluated=self._deepest,
                rounds=budget_of(fleet, self.name),
                consistency=1.0,
            ),
        )

    def final(self, partition: Partition) -> Work:
        """All classifiers of the greatest depth that somebody holds."""
        return self._deepest or depth(partition, len(partition.blocks))
