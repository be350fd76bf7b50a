"""Narrower networks: one that everybody holds, or for every client as wide a one as it holds."""

from __future__ import annotations

from device_profiles.errors import ExecutionError
from server.fleet import Fleet, MethodSettings
from server.methods.method import Promises, Stage, budget_of
from server.work import Work

_SIXTEENTHS = tuple(Work(purpose="narrow", ratio=part / 16) for part in range(16, 0, -1))


class AllSmall:
    """The widest network that every client holds, in steps of a sixteenth of its channels, trained by all."""

    name = "allsmall"
    source = "the baseline of that name in Wu, Li, Xu, KDD 2025"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings
        self._chosen = _SIXTEENTHS[-1]

    def works(self, blocks: int) -> tuple[Work, ...]:
        """Every width."""
        return _SIXTEENTHS

    def stages(self, fleet: Fleet, blocks: int, promises: Promises) -> tuple[Stage, ...]:
        """One, of the round budget."""
        fitting = [work for work in _SIXTEENTHS if len(promises.holders(work)) == len(promises.budgets)]
        if not fitting:
            raise ExecutionError("method allsmall: some client holds not even a sixteenth of the network's channels")
        self._chosen = fitting[0]
        work = promises.holders(self._chosen)
        rounds = budget_of(fleet, self.name)
        return (Stage(name="train", block=0, work=work, evaluated=self._chosen, rounds=rounds),)

    def final(self, blocks: int) -> Work:
        """The network of the width that was chosen."""
        return self._chosen


class HeteroFL:
    """Every client trains the first channels of every layer, as many as it holds; slices are averaged where they meet.

    As published: widths 1, 1/2, 1/4, 1/8, 1/16; no running statistics in training, they are taken over clients' data
    for evaluation; logits of classes that a client does not have are masked out of its loss and out of the average. Its
    scaler (activations divided by the width ratio) is left out: the BatchNorm behind every convolution undoes it.
    """

    name = "heterofl"
    source = "Diao, Ding, Tarokh, HeteroFL: Computation and Communication Efficient Federated Learning, ICLR 2021"
    LEVELS = tuple(Work(purpose="width", ratio=ratio) for ratio in (1.0, 0.5, 0.25, 0.125, 0.0625))

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, blocks: int) -> tuple[Work, ...]:
        """Every level."""
        return self.LEVELS

    def stages(self, fleet: Fleet, blocks: int, promises: Promises) -> tuple[Stage, ...]:
        """One, of the round budget."""
        held = {client: promises.first_held(client, self.LEVELS) for client in promises.budgets}
        work = {client: level for client, level in held.items() if level is not None}
        rounds = budget_of(fleet, self.name)
        return (Stage(name="train", block=0, work=work, evaluated=self.LEVELS[0], rounds=rounds),)

    def final(self, blocks: int) -> Work:
        """The full width."""
        return self.LEVELS[0]
