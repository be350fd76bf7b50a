"""The seam between the rounds of a run and whatever carries the work to the clients.

An engine says who is there (`clients`), takes tasks (`submit`) and tells what happens (`events`), one thing after the
other: an answer as it arrives, a client that comes, goes, or has more or less memory than before. It neither waits for
others nor holds what arrived. What may be done is the method's to say, who does it the planner's, and what an answer is
worth the rounds'; evaluation is the business of an `Evaluator`, which needs no client.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from device_profiles.task import Result, Task, TaskKey
from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.client import Client


@dataclass(frozen=True, kw_only=True, slots=True)
class Updated:
    """A task was done. `update` and `state` may be read until the next event is asked for; `state` is kept for the
    client's next task where the update is taken. How large it may be is the engine's to say."""

    task: TaskKey
    result: Result
    update: ReceivedUpdate
    state: Mapping[str, NDArray[Any]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A task will not be done; `result.status` says why."""

    task: TaskKey
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A client is there from now on, or is back."""

    client: Client


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A client is gone, and with it the task that it had."""

    client: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetChanged:
    """A client has another budget from now on; the task that it has goes on. `planned`: as it is planned for with that
    budget, where what it needs is not what it was, such as of a variant that takes less memory."""

    client: str
    budget_bytes: int
    planned: Client | None = None


Event = Updated | Failed | Joined | Left | BudgetChanged


class Engine(Protocol):
    """Gives tasks to clients and tells what comes of them; a client that fails is an event, not an exception."""

    def clients(self) -> Sequence[Client]:
        """Who is there now, in the order in which they are asked; later changes are events."""

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand out tasks, one to a client; does not wait for them."""

    def events(self, deadline: float | None) -> Generator[Event]:
        """What happens, as it happens: until every task that is out is answered and nothing else is waiting to be told,
        or until `deadline` (of `time.monotonic()`), None for as long as it takes."""

    def withdraw(self) -> None:
        """Give up every task that is out, as far as clients can be reached; no answer to it is asked for any more.
        One that comes all the same is told, and refused."""


class Evaluator(Protocol):
    """Judges weights on the test set."""

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float | None, float]:
        """Accuracy and loss on the test set of what `work` trains; raises ExecutionError. What is compared with numbers
        has no accuracy.

        Without `full` a draw of `test_examples` of the fleet file, which follows the rounds cheaply.
        """
