"""Clients come, go and change between rounds and within them, and answer when they like: what the rounds make of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_profiles.errors import ExecutionError
from device_profiles.task import Result, Task
from device_profiles.work import Width, grow, joint
from server.fleet.client import Client, alike
from server.fleet.fleet import MethodSettings, TrainingSettings
from server.methods.method import Stage
from server.planner.assignment import BestHeld
from server.rounds.frozen_prefixes import FrozenPrefixes
from server.rounds.roster import Roster
from server.rounds.run_state import RunFolder
from server.rounds.seam import BudgetChanged, Event, Joined, Left
from tests.support.fake_run import CLIENTS, FakeEngine, clients_of, run
from tests.support.partitions import blocks_of_one_unit

HELD, NOT_HELD = 2 << 20, 1 << 19
ALL = clients_of(dict.fromkeys(CLIENTS, HELD))


class Eventful(FakeEngine):
    """Tells events of its own: before an attempt (`between`), and in the place of an answer (`instead`)."""

    def __init__(
        self,
        *,
        there: Sequence[Client] = ALL,
        between: dict[int, list[Event]] | None = None,
        instead: Callable[[int, Task, Event], Iterable[Event]] = lambda attempt, task, event: [event],
    ) -> None:
        super().__init__(there=there)
        self.between = dict(between or {})
        self.instead = instead
        self.withdrawn = 0

    def events(self, deadline: float | None) -> Generator[Event]:
        if not self.out:
            yield from self.between.pop(len(self.calls), [])
        yield from super().events(deadline)

    def answers(self, task: Task) -> list[Event]:
        (event,) = super().answers(task)
        return list(self.instead(len(self.calls), task, event))

    def withdraw(self) -> None:
        self.withdrawn += 1
        super().withdraw()


def _asked(engine: FakeEngine) -> list[str]:
    return ["".join(task.client for task in tasks) for tasks in engine.calls]


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_bytes().splitlines()]


def test_a_client_that_joins_is_asked_from_then_on(tmp_path: Path) -> None:
    engine = Eventful(there=ALL[:2], between={1: [Joined(client=ALL[2])]})
    run(tmp_path, engine, min_clients=1)
    assert _asked(engine) == ["ab", "abc", "abc", "abc", "abc", "abc"]
    assert [line["participation"] for line in _lines(tmp_path)] == [1.0] * 6
    assert _lines(tmp_path)[1]["work"] == dict.fromkeys("abc", "grow-units0-0")


def test_a_client_that_leaves_within_a_round_has_failed_in_it_and_is_not_asked_again(tmp_path: Path) -> None:
    def leaves(attempt: int, task: Task, event: Event) -> list[Event]:
        return [Left(client="b")] if task.client == "b" else [event]

    engine = Eventful(instead=leaves)
    run(tmp_path, engine)
    assert _asked(engine) == ["abc", "ac", "ac", "ac", "ac", "ac"]
    first = _lines(tmp_path)[0]
    assert [client["status"] for client in first["clients"]] == ["ok", "left before it answered", "ok"]


def test_an_update_of_a_client_that_left_before_it_came_is_refused(tmp_path: Path) -> None:
    def leaves(attempt: int, task: Task, event: Event) -> list[Event]:
        return [Left(client="b"), event] if task.client == "b" and attempt == 1 else [event]

    _, weights = run(tmp_path / "late", Eventful(instead=leaves))
    dies = Eventful(instead=lambda attempt, task, event: [Left(client="b")] if task.client == "b" else [event])
    _, without = run(tmp_path / "without", dies)
    assert _lines(tmp_path / "late")[0]["late"] == ["b"]
    assert all(np.array_equal(weights[name], tensor) for name, tensor in without.items())


def test_a_budget_that_no_longer_holds_the_promise_leaves_no_work_until_it_grows(tmp_path: Path) -> None:
    shrinks, grows = (BudgetChanged(client="b", budget_bytes=budget) for budget in (NOT_HELD, HELD))
    engine = Eventful(between={1: [shrinks], 3: [grows]})
    run(tmp_path, engine)
    assert _asked(engine) == ["abc", "ac", "ac", "abc", "abc", "abc"]
    assert [round(line["participation"], 2) for line in _lines(tmp_path)] == [1.0, 0.67, 0.67, 1.0, 1.0, 1.0]


def test_a_smaller_budget_gets_the_best_that_it_still_holds() -> None:
    stage = Stage(
        name="train",
        block=0,
        choices=tuple(Width(ratio=ratio) for ratio in (1.0, 0.5, 0.25)),
        evaluated=Width(ratio=1.0),
        rounds=1,
    )
    roster = Roster(alike({"a": 100, "b": 100}, {"width-1": 90, "width-0.5": 50, "width-0.25": 20}))
    names = []
    for budget in (100, 60, 20, 10):
        roster.apply(BudgetChanged(client="b", budget_bytes=budget))
        names.append({client: work.name for client, work in BestHeld().assign(stage, roster.clients).items()})
    assert [work["a"] for work in names] == ["width-1"] * 4
    assert [work.get("b") for work in names] == ["width-1", "width-0.5", "width-0.25", None]


def test_when_too_few_are_left_the_run_stops_saved_and_goes_on_with_who_is_there_then(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"grow 1, round 2: 1 clients delivered .* after round 1"):
        run(tmp_path, Eventful(between={1: [Left(client="b"), Left(client="c")]}))
    engine = Eventful(there=ALL[1:])
    state, _ = run(tmp_path, engine)
    assert state.finished and _asked(engine) == ["bc"] * 5


def test_a_run_that_was_interrupted_is_the_undisturbed_one_where_the_same_clients_are_there(tmp_path: Path) -> None:
    def fleet(rounds: int) -> Eventful:
        return Eventful(there=ALL[:2], between={rounds: [Joined(client=ALL[2])]})

    _, whole = run(tmp_path / "whole", fleet(3))

    def stops(attempt: int, task: Task, event: Event) -> list[Event]:
        if attempt == 4:
            raise KeyboardInterrupt
        return [event]

    engine = Eventful(there=ALL[:2], instead=stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", engine)
    assert engine.withdrawn == 1 and RunFolder(tmp_path / "broken").load()[0].round == 3
    _, resumed = run(tmp_path / "broken", Eventful(there=ALL))
    assert all(np.array_equal(resumed[name], tensor) for name, tensor in whole.items())


class Slow(FakeEngine):
    """Client c never answers in time; what it trained in round 1 comes in round 2."""

    late: Event | None = None

    def events(self, deadline: float | None) -> Generator[Event]:
        for task in list(self.out):
            (event,) = super().answers(task)
            if task.client != "c":
                self.out.remove(task)
                yield event
            elif self.late is None:
                self.late = event
        if len(self.calls) == 2 and self.late is not None and self.out:
            yield self.late
        while self.out and deadline is not None and time.monotonic() < deadline:
            time.sleep(0.01)


def test_who_misses_the_deadline_has_failed_and_its_late_update_is_refused(tmp_path: Path) -> None:
    training = TrainingSettings(min_clients=2, rounds=3, deadline_seconds=0.05)
    _, weights = run(tmp_path / "slow", Slow(), rounds=1, training=training)
    lines = _lines(tmp_path / "slow")
    said = "no answer within training.deadline_seconds 0.05"
    assert [[client["status"] for client in line["clients"]] for line in lines] == [["ok", "ok", said]] * 3
    assert [line["late"] for line in lines] == [[], ["c"], []]
    dead = FakeEngine(
        fate=lambda call, task, u: Result(client="c", status="died", seconds=0.0) if task.client == "c" else u
    )
    _, without = run(tmp_path / "dead", dead, rounds=1, training=training)
    assert all(np.array_equal(weights[name], tensor) for name, tensor in without.items())


def test_the_order_of_arrival_changes_nothing(tmp_path: Path) -> None:
    class Backwards(FakeEngine):
        def events(self, deadline: float | None) -> Generator[Event]:
            self.out.reverse()
            yield from super().events(deadline)

    _, one = run(tmp_path / "one", FakeEngine())
    _, other = run(tmp_path / "other", Backwards())
    assert all(np.array_equal(one[name], tensor) for name, tensor in other.items())
    told = [[[c["client"] for c in line["clients"]] for line in _lines(tmp_path / name)] for name in ("one", "other")]
    assert told[0] == told[1]


def test_updates_of_a_round_lie_in_files_and_are_gone_after_it(tmp_path: Path) -> None:
    seen: list[int] = []

    class Looks(FakeEngine):
        def answers(self, task: Task) -> Iterable[Event]:
            seen.append(len(list((tmp_path / "updates").glob("*.safetensors"))))
            return super().answers(task)

    run(tmp_path, Looks())
    assert seen == [0, 1, 2] * 6 and not (tmp_path / "updates").exists()


def test_what_a_killed_server_left_of_a_round_is_gone_when_it_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates" / "000007.safetensors").write_bytes(b"half")
    run(tmp_path, FakeEngine())
    assert not (tmp_path / "updates").exists()


def test_frozen_blocks_that_others_moved_are_another_state_and_are_sent_again() -> None:
    partition = blocks_of_one_unit(2)
    first, last = grow(partition, 2), joint(partition, 1, 2)
    prefixes = FrozenPrefixes()
    name = prefixes.name(1, first, {"a": first})
    prefixes.answered(1, {"a": first}, [Result(client="a", status="ok", seconds=0.0)])
    prefixes.trained(1, 5, [first])
    assert name == "stage1" and prefixes.had_by("a", name)
    assert prefixes.name(1, first, {"a": first, "b": last}) is None  # b moves it in this round
    prefixes.trained(1, 6, [first, last])
    moved = prefixes.name(1, first, {"a": first})  # b has left
    assert moved == "stage1-round6" and not prefixes.had_by("a", moved)
    assert prefixes.name(2, first, {"a": first}) == "stage2"


def test_every_method_takes_clients_that_come_and_go(tmp_path: Path) -> None:
    for number, method in enumerate(("profl", "elastic")):
        engine = Eventful(there=ALL[:2], between={2: [Joined(client=ALL[2])], 4: [Left(client="a")]})
        state, _ = run(tmp_path / str(number), engine, min_clients=1, method=MethodSettings(name=method))  # type: ignore[arg-type]
        assert state.finished and _asked(engine) == ["ab", "ab", "abc", "abc", "bc", "bc"]
