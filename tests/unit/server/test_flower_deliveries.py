"""An order that a device was given and does not have is sent again; one that it has is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("flwr", reason="the engine speaks through Flower")

from flwr.app import Message

from device_profiles.federation import QUERY_DEVICE, QUERY_PROFILE, DeviceAnswer
from server.engines.flower import deliveries as deliveries_module
from server.engines.flower import devices as devices_module
from server.engines.flower.arriving import Reply
from server.rounds.seam import Updated
from tests.support.fake_federation import Federation, until
from tests.support.fake_grid import GOLDEN_PROFILE, Node, failing


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(devices_module, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(devices_module, "_ASK_SHARE", 0)
    monkeypatch.setattr(deliveries_module, "CHECK_SECONDS", 0.05)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[[Node], Federation]]:
    made: list[Federation] = []

    def make(node: Node) -> Federation:
        made.append(Federation(tmp_path, {11: node}))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()


Make = Callable[[Node], Federation]


def test_a_task_that_a_device_lost_is_sent_again_and_its_time_counts_from_the_first(federation: Make) -> None:
    there = federation(node := Node("a", took=[]))
    there.ready(1)
    node.loses = 2
    (event,) = there.done(there.task("a", attempt=4), seconds=20.0)
    assert isinstance(event, Updated) and event.task.attempt == 4
    assert event.result.seconds > 0.1
    assert len(node.orders) == 1 and node.took is not None and len(node.took) == 1
    assert there.said == ["a: does not have what it was asked for, as after a kill, and is asked again"] * 2


def test_an_order_for_a_profile_that_a_device_lost_is_sent_again(federation: Make) -> None:
    there = federation(node := Node("a", profile=None, measured=GOLDEN_PROFILE, took=[], loses=1))
    there.ready(1)
    assert node.asked.count(QUERY_PROFILE) == 2


def test_a_device_that_has_its_task_is_asked_once(federation: Make) -> None:
    there = federation(node := Node("a", took=[], train=lambda order, honest: None))
    there.ready(1)
    device = there.devices.named("a")
    assert device is not None
    there.engine.submit([there.task("a")])
    until(lambda: there.look() is not None and not device.order)
    asked = node.asked.count(QUERY_DEVICE)
    for _ in range(4):
        time.sleep(0.06)
        there.look()
    assert node.asked.count(QUERY_DEVICE) == asked and len(node.orders) == 1


def test_of_two_answers_to_one_task_the_update_counts_and_the_other_is_not_told(federation: Make) -> None:
    """As where the first order was only late: the device declines the second one while it is at the first."""
    sent: list[tuple[Message, Message]] = []

    def held(order: Message, honest: Message) -> None:
        sent.append((order, honest))

    there = federation(node := Node("a", took=[], train=held))
    there.ready(1)
    there.engine.submit([there.task("a")])
    events = there.engine.events(time.monotonic() + 20)
    node.took = []
    until(lambda: next(there.devices.look(), None) is None and node.asked[-1] == QUERY_DEVICE)

    def answers() -> None:
        first, second = sent
        there.grid.answer(second[0].metadata.message_id, failing(second[0], 8))
        there.grid.answer(first[0].metadata.message_id, first[1])

    node.train = lambda order, honest: (sent.append((order, honest)), answers())[1]  # type: ignore[func-returns-value]
    (event,) = events
    assert isinstance(event, Updated) and len(node.orders) == 2


def test_a_device_that_was_given_a_task_since_it_was_asked_is_planned_for_anew_and_keeps_the_task(
    federation: Make,
) -> None:
    there = federation(Node("a", train=lambda order, honest: None))
    there.ready(1)
    device = there.devices.named("a")
    assert device is not None
    device.given("grow-units0-0", "order")
    device.asked = "question"
    answer = DeviceAnswer(name="a", release="1", budget_bytes=5, examples=9, busy="trains grow-units0-0, 1 s")
    changes = list(there.devices.take("question", Reply(sender=11, document=msgspec.json.encode(answer))))
    assert [(change.device.name, change.what) for change in changes] == [("a", "changed")]
    assert (device.budget_bytes, device.busy, device.there) == (5, None, True)
