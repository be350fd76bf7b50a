"""Answers of the `flower` engine that come late, in parts, from others, or too large."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("flwr", reason="the engine speaks through Flower")

from flwr.app import Message

from device_profiles.federation import FILES, JSON, ORDER, TrainAnswer
from server.engines.flower import devices as devices_module
from server.rounds.seam import Failed, Updated
from tests.support.fake_federation import Federation, until
from tests.support.fake_grid import Node


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(devices_module, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(devices_module, "_ASK_SHARE", 0)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(*nodes: Node, **settings: Any) -> Federation:
        made.append(Federation(tmp_path, dict(enumerate(nodes, start=11)), **settings))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()


Make = Callable[..., Federation]


def test_an_answer_in_the_place_of_another_is_dropped_and_the_real_one_is_still_taken(federation: Make) -> None:
    held: list[Message] = []

    def spoken_for(order: Message, honest: Message) -> Message:
        held[:] = [order, Message(honest.content, reply_to=order)]
        honest.metadata.__dict__["_src_node_id"] = 12
        return honest

    there = federation(Node("a", train=spoken_for), Node("b"))
    there.ready(2)
    there.engine.submit([there.task("a")])
    until(lambda: bool(held) and there.grid.kept == 0)
    assert there.look() == []
    order, honest = held
    there.grid.answer(order.metadata.message_id, honest)
    (event,) = there.engine.events(time.monotonic() + 10)
    assert isinstance(event, Updated) and event.task.client == "a"


def test_an_update_that_is_larger_than_its_task_allows_is_not_fetched(federation: Make) -> None:
    def boasting(order: Message, honest: Message) -> Message:
        answer = msgspec.json.decode(honest.content[ORDER][JSON], type=TrainAnswer)
        assert answer.update is not None
        large = msgspec.structs.replace(answer.update, bytes=1 << 40)
        honest.content[ORDER][JSON] = msgspec.json.encode(msgspec.structs.replace(answer, update=large))
        return honest

    there = federation(Node("a", train=boasting))
    there.ready(1)
    (event,) = there.done(there.task("a"))
    assert isinstance(event, Failed)
    assert "its update has 1099511627776 bytes, where " in event.result.status and there.grid.kept == 0
    assert not [path for path in (there.folder / "clients").rglob("*") if path.is_file()]


def test_answers_that_stop_in_the_middle_hold_up_nobody(federation: Make) -> None:
    """More of them than threads, and none is waited for: what is missing of them comes later."""
    there = federation(*(Node(name) for name in "abcdefgh"))
    there.ready(8)

    def torn(order: Message, honest: Message) -> Message:
        there.grid.late.add(honest.content[FILES].object_id)
        return honest

    for number in range(11, 18):
        there.grid.nodes[number].train = torn
    there.engine.submit([there.task(name) for name in "abcdefgh"])
    started = time.monotonic()
    first = next(there.engine.events(time.monotonic() + 10))
    assert isinstance(first, Updated) and first.task.client == "h" and time.monotonic() - started < 5
    until(lambda: len(there.grid.late) == 7)
    there.grid.late.clear()
    events = list(there.engine.events(time.monotonic() + 10))
    assert {event.task.client for event in events if isinstance(event, Updated)} == set("abcdefg")


def test_no_update_is_left_of_a_round_that_ends_before_all_have_answered(federation: Make) -> None:
    there = federation(Node("a"), Node("b"), Node("c"))
    there.ready(3)
    there.engine.submit([there.task(name) for name in "abc"])
    with closing(there.engine.events(time.monotonic() + 10)) as events:
        assert isinstance(next(events), Updated)
    there.engine.withdraw()
    there.engine.close()
    assert not [path for path in (there.folder / "clients").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("said", "share"), [(0, 0.0), (7, None), (1 << 50, 1.0), (-3, 1.0)])
def test_what_a_device_says_that_it_fetched_is_no_more_than_its_task_has(
    federation: Make, said: int, share: float | None
) -> None:
    def fetched(order: Message, honest: Message) -> Message:
        answer = msgspec.json.decode(honest.content[ORDER][JSON], type=TrainAnswer)
        result = msgspec.structs.replace(answer.result, bytes_down=said)
        honest.content[ORDER][JSON] = msgspec.json.encode(msgspec.structs.replace(answer, result=result))
        return honest

    there = federation(Node("a", train=fetched))
    there.ready(1)
    (event,) = there.done(there.task("a"))
    (order,) = there.grid.nodes[11].orders
    whole = sum(file.bytes for file in order.files.values())
    assert isinstance(event, Updated)
    assert event.result.bytes_down == (7 if share is None else share * whole)
