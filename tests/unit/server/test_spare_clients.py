"""Rounds that do not wait for the slowest, and rounds that wait for clients who are away."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import ExecutionError
from device_profiles.task import NOT_NEEDED, Result
from server.fleet.client import Client
from server.fleet.fleet import TrainingSettings
from server.rounds.seam import Event, Joined
from tests.support.fake_run import CLIENTS, FakeEngine, clients_of, lines_of, run

ALL = clients_of(dict.fromkeys(CLIENTS, 2 << 20))
SPARE = TrainingSettings(min_clients=1, clients_per_round=2, spare=1, rounds=3)


def _statuses(folder: Path) -> list[list[str]]:
    return [[client["status"] for client in line["clients"]] for line in lines_of(folder)]


def test_a_round_ends_when_as_many_as_it_needs_have_delivered(tmp_path: Path) -> None:
    engine = FakeEngine()
    run(tmp_path, engine, rounds=1, training=SPARE)
    assert [len(tasks) for tasks in engine.calls] == [3, 3, 3]
    assert _statuses(tmp_path) == [["ok", "ok", NOT_NEEDED]] * 3


def test_a_spare_client_takes_the_place_of_one_that_fails(tmp_path: Path) -> None:
    gone = Result(client="a", status="went away before it answered", seconds=0.0)
    run(tmp_path, FakeEngine(fate=lambda call, task, u: gone if task.client == "a" else u), rounds=1, training=SPARE)
    assert _statuses(tmp_path) == [[gone.status, "ok", "ok"]] * 3


def test_what_comes_after_the_end_of_a_round_is_refused(tmp_path: Path) -> None:
    class Late(FakeEngine):
        """Answers all tasks, the last one of a round only when the next is asked for."""

        kept: Event | None = None

        def events(self, deadline: float | None) -> Generator[Event]:
            if not self.out and self.kept is not None:
                yield self.kept
                self.kept = None
            if len(self.out) == 3:
                (self.kept,) = self.answers(self.out[2])
            yield from super().events(deadline)

    _, weights = run(tmp_path / "late", Late(), rounds=1, training=SPARE)
    _, without = run(tmp_path / "without", FakeEngine(), rounds=1, training=SPARE)
    assert [line["late"] for line in lines_of(tmp_path / "late")] == [[], ["c"], ["c"]]
    assert all(np.array_equal(weights[name], tensor) for name, tensor in without.items())


class Away(FakeEngine):
    """The third client comes only at the fourth look."""

    looks = 0

    def clients(self) -> Sequence[Client]:
        return ALL

    def events(self, deadline: float | None) -> Generator[Event]:
        if not self.out:
            self.looks += 1
            if self.looks == 4:
                yield Joined(client=ALL[2])
            elif deadline is not None:
                time.sleep(max(0.0, min(0.01, deadline - time.monotonic())))
        yield from super().events(deadline)


def test_an_attempt_waits_for_clients_that_are_away(tmp_path: Path) -> None:
    class Leaves(Away):
        def events(self, deadline: float | None) -> Generator[Event]:
            from server.rounds.seam import Left

            if not self.out and not self.looks:
                yield Left(client="c")
            yield from super().events(deadline)

    engine = Leaves()
    training = TrainingSettings(min_clients=3, rounds=3)
    run(tmp_path, engine, rounds=1, training=training, absent_seconds=30.0)
    assert [len(tasks) for tasks in engine.calls] == [3, 3, 3]
    with pytest.raises(ExecutionError, match="2 clients delivered"):
        run(tmp_path / "impatient", Leaves(), rounds=1, training=training)
