"""Narrower networks: one that everybody holds, or for every client as wide a one as it holds."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.errors import ExecutionError
from device_profiles.model import Partition
from device_profiles.work import Narrow, Width, Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet, MethodSettings
from server.methods.method import Stage, best_held, budget_of

_SIXTEENTHS: tuple[Work, ...] = tuple(Narrow(ratio=part / 16) for part in range(16, 0, -1))


class AllSmall:
    """The widest network that every client holds, in steps of a sixteenth of its channels, trained by all.

    What is our choice: the steps of a sixteenth, rounded down to whole channels, and that the narrow network starts
    from the first channels of the full network's initial weights, which were drawn for the full width.
    """

    name = "allsmall"
    source = "the baseline of that name in Wu, Li, Xu, KDD 2025"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings
        self._chosen = _SIXTEENTHS[-1]

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every width."""
        return _SIXTEENTHS

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        fitting = [work for work in _SIXTEENTHS if all(client.holds(work) for client in clients)]
        if not fitting:
            raise ExecutionError("method allsmall: some client holds not even a sixteenth of the network's channels")
        self._chosen = fitting[0]
        rounds = budget_of(fleet, self.name)
        return (Stage(name="train", block=0, choices=(self._chosen,), evaluated=self._chosen, rounds=rounds),)

    def final(self, partition: Partition) -> Work:
        """The network of the width that was chosen."""
        return self._chosen


class HeteroFL:
    """Every client trains the first channels of every layer, as many as it holds; slices are averaged where they meet.

    As published: widths 1, 1/2, 1/4, 1/8, 1/16; no running statistics in training, they are taken over clients' data
    for evaluation; logits of classes that a client does not have are masked out of its loss and out of the average.

    What differs: its scaler (activations divided by the width ratio) is left out, because the BatchNorm behind every
    convolution undoes it; the average is weighted by examples, where the published code counts every client once;
    widths are rounded down, there up; statistics are taken with momentum 0.1 over at most 40 batches, made of the first
    examples of every client. A client has the widest level whose promise it holds, and keeps it.
    """

    name = "heterofl"
    source = "Diao, Ding, Tarokh, HeteroFL: Computation and Communication Efficient Federated Learning, ICLR 2021"
    LEVELS: tuple[Work, ...] = tuple(Width(ratio=ratio) for ratio in (1.0, 0.5, 0.25, 0.125, 0.0625))
    by_class = "leaves the classes out of the loss that a client has no example of"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings
        self._widest = self.LEVELS[0]

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every level."""
        return self.LEVELS

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """One, of the round budget."""
        # Wider ones have channels that nobody trains.
        self._widest = best_held(self.LEVELS, clients)
        rounds = budget_of(fleet, self.name)
        return (Stage(name="train", block=0, choices=self.LEVELS, evaluated=self._widest, rounds=rounds),)

    def final(self, partition: Partition) -> Work:
        """The widest level that somebody holds."""
        return self._widest
