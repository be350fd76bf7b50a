"""The `flower` engine on a grid without a network: what is sent, what becomes of answers, and who is there."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("flwr", reason="the engine speaks through Flower")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from flwr.app import ArrayRecord, Message

from device_profiles.federation import FILES, JSON, ORDER, SIGNATURE, TRAIN_TASK, UPDATE_FILE, TrainAnswer
from device_profiles.files import to_json
from server.engines.flower import devices as devices_module
from server.engines.flower.mail import file_array
from server.fleet.client import Client
from server.fleet.structure import Structure
from server.rounds.seam import BudgetChanged, Event, Failed, Joined, Left, Updated
from tests.support.fake_federation import KEY, NEEDS, WORK, Federation, until
from tests.support.fake_grid import GOLDEN_PROFILE, Node, documented, failing
from tests.support.fake_run import MANIFEST


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


def test_devices_are_clients_by_name_and_their_updates_come_back(federation: Make) -> None:
    there = federation(Node("b", examples=40), Node("a"))
    assert [client.name for client in there.ready(2)] == ["a", "b"]
    events = there.done(there.task("a"), there.task("b"))
    assert all(isinstance(event, Updated) for event in events)
    assert {event.task.client for event in events if isinstance(event, Updated)} == {"a", "b"}
    for event in events:
        assert isinstance(event, Updated)
        assert event.result.status == "ok" and event.result.bytes_down > 0 < event.result.bytes_up
        assert event.result.measured_peak_bytes == 1 << 20
    assert not [path for path in (there.folder / "clients").rglob("*") if path.is_file()]


def test_an_update_may_be_read_until_the_next_event(federation: Make) -> None:
    there = federation(Node("a"), Node("b"))
    there.ready(2)
    there.engine.submit([there.task("a"), there.task("b")])
    for event in there.engine.events(time.monotonic() + 10):
        assert isinstance(event, Updated)
        names = Structure.of(MANIFEST).tensors(WORK)
        assert {name: event.update.tensors[name].shape for name in event.update.tensors} == {
            name: tensor.shape for name, tensor in names.items()
        }


def test_orders_are_signed_and_name_every_file(federation: Make) -> None:
    there = federation(Node("a"))
    there.ready(1)
    there.done(there.task("a"))
    order = next(message for message in there.grid.sent if message.metadata.message_type == TRAIN_TASK)
    raw, signature = order.content[ORDER][JSON], order.content[ORDER][SIGNATURE]
    KEY.public_key().verify(signature, raw, ec.ECDSA(SHA256()))
    (said,) = there.grid.nodes[11].orders
    assert set(said.files) == set(order.content[FILES])
    assert all(said.files[name].bytes == len(array.data) for name, array in order.content[FILES].items())
    assert (said.client, said.attempt, said.work, said.promise_bytes) == ("a", 0, WORK.name, 1 << 20)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (5, "went away before it answered"),
        (8, "its client app died"),
        (3, "its answer did not arrive whole"),
        (99, "error 99 of its client: no reason"),
    ],
)
def test_an_error_of_flower_is_a_failure_with_its_reason(federation: Make, code: int, status: str) -> None:
    there = federation(Node("a", train=lambda order, honest: failing(order, code)), Node("b"))
    there.ready(2)
    events = {event.task.client: event for event in there.done(there.task("a"), there.task("b"))}  # type: ignore[union-attr]
    assert isinstance(events["a"], Failed) and events["a"].result.status == status
    assert isinstance(events["b"], Updated)


def _garbage(order: Message, honest: Message) -> Message:
    honest.content[FILES] = ArrayRecord({UPDATE_FILE: file_array(b"\xff" * 999)})
    return honest


def _no_document(order: Message, honest: Message) -> Message:
    del honest.content[ORDER]
    return honest


def _no_json(order: Message, honest: Message) -> Message:
    honest.content[ORDER][JSON] = b"{" * 10_000
    return honest


def _no_update(order: Message, honest: Message) -> Message:
    del honest.content[FILES]
    return honest


def _other_attempt(order: Message, honest: Message) -> Message:
    answer = msgspec.json.decode(honest.content[ORDER][JSON], type=TrainAnswer)
    honest.content[ORDER][JSON] = msgspec.json.encode(msgspec.structs.replace(answer, attempt=99))
    return honest


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (_garbage, "its update is not what it says that it sent"),
        (_no_document, "unreadable answer: holds no document"),
        (_no_json, "unreadable answer: "),
        (_no_update, "its update is not what it says that it sent"),
        (_other_attempt, "answered to another task"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure_of_its_sender_alone(
    federation: Make, train: Callable[[Message, Message], Message], said: str
) -> None:
    there = federation(Node("a", train=train), Node("b"))
    there.ready(2)
    events = {event.task.client: event for event in there.done(there.task("a"), there.task("b"))}  # type: ignore[union-attr]
    assert isinstance(events["a"], Failed) and said in events["a"].result.status
    assert "\n" not in events["a"].result.status
    assert isinstance(events["b"], Updated)


def test_an_answer_that_is_not_what_its_name_says_is_a_failure_of_its_sender_alone(federation: Make) -> None:
    there = federation(Node("a"), Node("b"))
    there.ready(2)
    there.grid.broken.add(11)
    events = {event.task.client: event for event in there.done(there.task("a"), there.task("b"))}  # type: ignore[union-attr]
    assert isinstance(events["a"], Failed)
    assert events["a"].result.status == "unreadable answer: a Message of it has another SHA-256 than its name"
    assert isinstance(events["b"], Updated)


def test_an_update_with_another_hash_or_for_other_work_is_refused(federation: Make) -> None:
    def flipped(order: Message, honest: Message) -> Message:
        content = bytearray(honest.content[FILES][UPDATE_FILE].data)
        content[-1] ^= 1
        honest.content[FILES] = ArrayRecord({UPDATE_FILE: file_array(bytes(content))})
        return honest

    there = federation(Node("a", train=flipped))
    there.ready(1)
    (event,) = there.done(there.task("a"))
    assert isinstance(event, Failed) and "damaged on the way" in event.result.status


def test_a_device_that_cannot_be_reached_has_failed_and_the_others_have_not(federation: Make) -> None:
    there = federation(Node("a"), Node("b"))
    there.ready(2)
    there.grid.refuses.add(11)
    events = {event.task.client: event for event in there.done(there.task("a"), there.task("b"))}  # type: ignore[union-attr]
    assert isinstance(events["a"], Failed) and "could not be sent: the node's key is odd" in events["a"].result.status
    assert isinstance(events["b"], Updated)


@pytest.mark.parametrize(("times", "arrives"), [(2, True), (3, False)])
def test_what_the_superlink_forgets_while_it_is_sent_is_sent_again(federation: Make, times: int, arrives: bool) -> None:
    there = federation(Node("a"))
    there.ready(1)
    there.grid.forgets[11] = times
    (event,) = there.done(there.task("a"))
    assert isinstance(event, Updated) == arrives and there.grid.forgets[11] == 0
    if isinstance(event, Failed):
        assert "could not be sent: Failed to push object" in event.result.status


def test_the_deadline_ends_the_waiting_and_a_late_answer_is_told_as_that_of_its_attempt(federation: Make) -> None:
    held: list[Message] = []

    def later(order: Message, honest: Message) -> None:
        held[:] = [order, honest]

    there = federation(Node("a", train=later))
    there.ready(1)
    started = time.monotonic()
    assert there.done(there.task("a", attempt=3), seconds=0.5) == []
    assert 0.4 < time.monotonic() - started < 5
    there.engine.withdraw()
    assert there.look() == []
    order, honest = held
    there.grid.answer(order.metadata.message_id, honest)
    found: list[Event] = []
    until(lambda: bool(found.extend(there.look()) or found))
    assert isinstance(found[0], Updated) and found[0].task.attempt == 3


def test_devices_come_go_and_change_while_others_are_waited_for(federation: Make) -> None:
    there = federation(Node("a", train=lambda order, honest: None), Node("b"))
    there.ready(2)
    there.engine.submit([there.task("a")])
    events = there.engine.events(time.monotonic() + 20)
    there.grid.nodes[20] = Node("c")
    joined = next(events)
    assert isinstance(joined, Joined) and joined.client.name == "c" and joined.client.needs == NEEDS
    there.grid.nodes[12].budget_bytes = 1
    planned = Client(name="b", budget_bytes=1, needs=NEEDS, examples=100)
    assert next(events) == BudgetChanged(client="b", budget_bytes=1, planned=planned)
    there.grid.nodes[20].busy = "quiet hours"
    assert next(events) == Left(client="c")
    del there.grid.nodes[11]
    assert list(events) == [Left(client="a")]
    assert [client.name for client in there.engine.clients()] == ["b"]


def test_a_device_with_a_task_is_not_asked_what_it_may_use(federation: Make) -> None:
    there = federation(Node("a", train=lambda order, honest: None))
    there.ready(1)
    there.engine.submit([there.task("a")])
    asked = len(there.grid.nodes[11].asked)
    list(there.engine.events(time.monotonic() + 1.5))
    assert len(there.grid.nodes[11].asked) == asked


def test_a_device_without_a_profile_is_asked_for_one_that_is_kept(federation: Make) -> None:
    there = federation(Node("a", profile=None, measured=GOLDEN_PROFILE))
    there.ready(1)
    assert there.grid.nodes[11].asked[:2] == ["query.device", "query.profile"]
    assert (there.folder / "profiles" / "a.json").read_bytes() == to_json(GOLDEN_PROFILE.without_timelines())
    there.grid.nodes = {30: Node("a", profile=None)}
    until(lambda: there.look() is not None and [d.node for d in there.devices.there()] == [30])
    assert "query.profile" not in there.grid.nodes[30].asked


def test_one_that_cannot_be_profiled_takes_no_part_and_is_named(federation: Make) -> None:
    there = federation(Node("a", profile=None), Node("b"))
    there.ready(1)
    until(lambda: there.look() is not None and any("could not be profiled" in line for line in there.said))
    assert "a: could not be profiled: its memory is full" in there.said
    assert [client.name for client in there.engine.clients()] == ["b"]


def test_two_of_one_name_are_told_apart_and_odd_names_are_plain(federation: Make) -> None:
    there = federation(Node("pi"), Node("pi"), Node("../../\x1b[31m" + "x" * 99))
    names = [client.name for client in there.ready(3)]
    assert names[0].startswith("-") or names[0][0].isalnum()
    assert {"pi", "pi-c"} <= set(names) or {"pi", "pi-b"} <= set(names)
    assert all(len(name) <= 66 and "/" not in name and name.isprintable() for name in names)


def test_the_memory_of_the_server_does_not_grow_with_the_number_of_updates(federation: Make, tmp_path: Path) -> None:
    """50 answers of 20 MB each are never in memory together."""

    def large(order: Message, honest: Message) -> Message:
        return documented(order, {"padding": "x"}, big)

    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(20 << 20)
    nodes = [Node(f"n{number:02}") for number in range(50)]
    there = federation(*nodes)
    there.ready(50)
    for node in nodes:
        node.train = large
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    events = there.done(*(there.task(node.name) for node in nodes), seconds=500)  # a busy machine takes its time
    assert len(events) == 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
