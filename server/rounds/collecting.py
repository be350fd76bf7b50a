"""From tasks to answers: hands out the tasks of one attempt and takes what comes, until all answered or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from numpy.typing import NDArray

from device_profiles.errors import FormatError
from device_profiles.task import NOT_NEEDED, Result, Task
from server.averaging.aggregation import ReceivedUpdate
from server.averaging.spool import Spool
from server.rounds.roster import Roster
from server.rounds.seam import Engine, Event, Failed, Left, Updated

State = Mapping[str, NDArray[Any]]
_LOOK_SECONDS = 1.0
"""Between two looks at who is there while too few are."""


@dataclass(kw_only=True, slots=True)
class Answers:
    """What came of one attempt.

    Attributes:
        results: one for every task, in their order.
        updates: in the order of the tasks, whatever order they came in; their tensors are in files.
        late: clients whose answer to an earlier attempt came only now; it is refused.
    """

    results: list[Result] = field(default_factory=list)
    updates: list[ReceivedUpdate] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


class Collector:
    """Speaks with the engine for the rounds; keeps the roster as its events say."""

    def __init__(
        self, engine: Engine, spool: Spool, deadline_seconds: float | None, *, absent_seconds: float = 0.0
    ) -> None:
        """`deadline_seconds`: how long an attempt waits for its answers, None for as long as they take;
        `absent_seconds`: how long one waits for clients that are not there."""
        self._engine = engine
        self._absent_seconds = absent_seconds
        self._spool = spool
        self._deadline_seconds = deadline_seconds
        self.roster = Roster(engine.clients())

    def settle(self, enough: Callable[[], bool] = lambda: True) -> list[str]:
        """Follow what happened since the last attempt, and wait until those who are there are `enough`, as long as the
        run waits for anybody; who answered too late."""
        waiting = _Waiting([], self.roster, self._spool, lambda result: None, lambda client, state: None)
        end = time.monotonic() + self._absent_seconds
        self._listen(waiting, time.monotonic())
        while not enough() and time.monotonic() < end:
            self._listen(waiting, min(end, time.monotonic() + _LOOK_SECONDS))
        return waiting.answers.late

    def collect(
        self,
        tasks: Sequence[Task],
        done: Callable[[Result], None],
        keep: Callable[[str, State], None],
        *,
        wanted: int | None = None,
    ) -> Answers:
        """Hand out `tasks` and take their answers; `done` is told each result as it comes, `keep` is given what is to
        be kept for a client until its next task. With `wanted`, nobody is waited for when so many have delivered."""
        waiting = _Waiting(tasks, self.roster, self._spool, done, keep)
        seconds = self._deadline_seconds
        try:
            self._engine.submit(tasks)
            self._listen(waiting, None if seconds is None else time.monotonic() + seconds, wanted)
            if waiting.open and waiting.has(wanted):
                self._engine.withdraw()
                waiting.give_up(NOT_NEEDED)
            elif waiting.open:
                reason = "no answer" if seconds is None else f"no answer within training.deadline_seconds {seconds:g}"
                self._engine.withdraw()
                waiting.give_up(reason)
        except BaseException:
            self._engine.withdraw()
            raise
        return waiting.in_order()

    def _listen(self, waiting: _Waiting, deadline: float | None, wanted: int | None = None) -> None:
        # Closed here and not when it is collected: an engine cleans up behind its last event.
        with closing(self._engine.events(deadline)) as events:
            for event in events:
                waiting.take(event)
                if waiting.has(wanted):
                    return


class _Waiting:
    """The tasks of an attempt that are not answered yet, and the answers that came."""

    def __init__(
        self,
        tasks: Sequence[Task],
        roster: Roster,
        spool: Spool,
        done: Callable[[Result], None],
        keep: Callable[[str, State], None],
    ) -> None:
        self._tasks = tasks
        self._roster = roster
        self._spool = spool
        self._done = done
        self._keep = keep
        self._attempts = {task.attempt for task in tasks}
        self.open = {task.client: task.key for task in tasks}
        self._results: dict[str, Result] = {}
        self._updates: list[ReceivedUpdate] = []
        self.answers = Answers()
        there = {client.name: client for client in roster.clients}
        self._promised = {
            task.client: there[task.client].needs.get(task.work.name) for task in tasks if task.client in there
        }

    def take(self, event: Event) -> None:
        """Follow one event."""
        if not isinstance(event, Updated | Failed):
            self._roster.apply(event)
            if isinstance(event, Left) and event.client in self.open:
                self._answered(Result(client=event.client, status="left before it answered", seconds=0.0))
            return
        client, attempt = event.task
        if attempt not in self._attempts or (client in self._results and client not in self._sent()):
            self.answers.late.append(client)
            return
        result = event.result
        if isinstance(event, Updated):
            try:
                self._updates.append(self._spool.put(event.update))
                if event.state is not None and client in self.open:
                    self._keep(client, event.state)
            except FormatError as error:
                result = Result(client=client, status=f"unreadable answer: {error}", seconds=event.result.seconds)
        if client in self.open:
            self._answered(result)

    def has(self, wanted: int | None) -> bool:
        """Whether as many as are `wanted` have delivered; never where all are."""
        return wanted is not None and sum(result.status == "ok" for result in self._results.values()) >= wanted

    def give_up(self, reason: str) -> None:
        """Nobody is waited for any more."""
        for client in list(self.open):
            self._answered(Result(client=client, status=reason, seconds=0.0))

    def in_order(self) -> Answers:
        """The answers in the order of the tasks; updates of strangers behind them."""
        place = {task.client: number for number, task in enumerate(self._tasks)}
        self.answers.results = [self._results[task.client] for task in self._tasks]
        self.answers.updates = sorted(self._updates, key=lambda update: place.get(update.client, len(place)))
        return self.answers

    def _sent(self) -> set[str]:
        return {update.client for update in self._updates}

    def _answered(self, result: Result) -> None:
        self.open.pop(result.client)
        # The promise is what the server planned with, by one rule for every engine, and not what a client says of it.
        result = msgspec.structs.replace(result, predicted_peak_bytes=self._promised.get(result.client))
        self._results[result.client] = result
        self._done(result)
