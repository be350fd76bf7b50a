"""What a method is to the schedule: stages, and who does what in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from device_profiles.errors import ExecutionError
from device_profiles.model import Partition
from device_profiles.work import Work, first_trained_unit
from server.fleet.fleet import Fleet, FreezingSettings

StageName = Literal["shrink", "distill", "grow", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Rounds that train one thing.

    Attributes:
        name: as it is reported.
        block: the block (1-based) it is about, 0 for the whole network.
        work: what each client does that has work.
        evaluated: what is evaluated after a round.
        rounds: at most this many; exactly, without `freezing`.
        freezing: ends the stage earlier when the parameters have stopped moving.
        takes_the_rest: the last stage, which goes on to the end of the run's round budget.
        learning_rate: instead of the fleet file's.
        consistency: weight of DepthFL's self-distillation at the end of its ramp.
        frozen_count: in the average, a tensor counts as unchanged for those who held it frozen while others trained it.
    """

    name: StageName
    block: int
    work: Mapping[str, Work]
    evaluated: Work
    rounds: int
    freezing: FreezingSettings | None = None
    takes_the_rest: bool = False
    learning_rate: float | None = None
    consistency: float = 0.0
    frozen_count: bool = False

    @property
    def title(self) -> str:
        """`grow 2`, or `train`."""
        return f"{self.name} {self.block}" if self.block else self.name

    def moves_before(self, work: Work) -> bool:
        """Whether some client trains blocks that are frozen for those who do `work`."""
        return first_trained_unit(work) > min(first_trained_unit(other) for other in self.work.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Promises:
    """What every client may use, and what every piece of work needs of it, in bytes.

    Attributes:
        budgets: by client.
        needs: by client and the work's name; work that is missing does not run on that client.
    """

    budgets: Mapping[str, int]
    needs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def holds(self, client: str, work: Work) -> bool:
        """Whether the client's memory holds the promise of `work`."""
        needed = self.needs[client].get(work.name)
        return needed is not None and needed <= self.budgets[client]

    def holders(self, work: Work) -> dict[str, Work]:
        """The clients that hold `work`, each with it."""
        return {client: work for client in self.budgets if self.holds(client, work)}

    def first_held(self, client: str, works: Sequence[Work]) -> Work | None:
        """The first of `works` that the client holds."""
        return next((work for work in works if self.holds(client, work)), None)


class Method(Protocol):
    """One way of training; `source` names where it was published."""

    name: str
    source: str

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Everything that clients may be asked for, for promises."""

    def stages(self, fleet: Fleet, partition: Partition, promises: Promises) -> tuple[Stage, ...]:
        """The stages of a run, in order; raises ExecutionError where nobody could take part."""

    def final(self, partition: Partition) -> Work:
        """What is evaluated at the end."""


def budget_of(fleet: Fleet, method: str) -> int:
    """The round budget, which this method needs."""
    if fleet.training.rounds is None:
        raise ExecutionError(
            f"method {method} has no end of its own", field="training.rounds", remedy="say how many rounds it trains"
        )
    return fleet.training.rounds
