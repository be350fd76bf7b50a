"""What a method is to the rounds: stages, and what may be done in each. Who does it is the planner's to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from device_profiles.errors import ExecutionError
from device_profiles.model import Partition
from device_profiles.work import Work
from server.fleet.client import Client
from server.fleet.fleet import Fleet, FreezingSettings, HeldFrozen, MethodSettings

StageName = Literal["shrink", "distill", "grow", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Rounds that train one thing.

    Attributes:
        name: as it is reported.
        block: the block (1-based) it is about, 0 for the whole network.
        choices: what clients may be asked for, the best first.
        evaluated: what is evaluated after a round.
        rounds: at most this many; exactly, without `freezing`.
        freezing: ends the stage earlier when the parameters have stopped moving.
        takes_the_rest: the last stage, which goes on to the end of the run's round budget.
        learning_rate: instead of the fleet file's.
        consistency: weight of DepthFL's self-distillation at the end of its ramp.
        held_frozen: how clients count in the average of a tensor that they held frozen.
        ignores_memory: everybody does the first choice, whatever memory there is.
    """

    name: StageName
    block: int
    choices: tuple[Work, ...]
    evaluated: Work
    rounds: int
    freezing: FreezingSettings | None = None
    takes_the_rest: bool = False
    learning_rate: float | None = None
    consistency: float = 0.0
    held_frozen: HeldFrozen = "left-out"
    ignores_memory: bool = False

    @property
    def title(self) -> str:
        """`grow 2`, or `train`."""
        return f"{self.name} {self.block}" if self.block else self.name


class Method(Protocol):
    """One way of training; `source` names where it was published."""

    name: str
    source: str

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Everything that clients may be asked for, for promises."""

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """The stages of a run, in order; raises ExecutionError where nobody could take part.

        `clients`: those that are there at its start, for what must be the same for all of them.
        """

    def final(self, partition: Partition) -> Work:
        """What is evaluated at the end."""


def budget_of(fleet: Fleet, method: str) -> int:
    """The round budget, which this method needs."""
    if fleet.training.rounds is None:
        raise ExecutionError(
            f"method {method} has no end of its own", field="training.rounds", remedy="say how many rounds it trains"
        )
    return fleet.training.rounds


def best_held(choices: Sequence[Work], clients: Sequence[Client]) -> Work:
    """The first of `choices`, which come best first, that somebody holds; the first of all where nobody holds any."""
    return next((work for work in choices if any(client.holds(work) for client in clients)), choices[0])


def held_frozen(settings: MethodSettings, own: HeldFrozen) -> HeldFrozen:
    """What the fleet file says of tensors that some hold frozen; where it says nothing, the method's `own` choice."""
    if settings.counts_frozen is None:
        return own
    return "unchanged" if settings.counts_frozen else "left-out"
