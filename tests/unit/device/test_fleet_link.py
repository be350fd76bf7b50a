"""Messages and replies over a link that breaks off, refuses, and has another clock."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed")

from device_profiles.errors import ExecutionError
from edge_runtime.device.fleet_api import errors
from edge_runtime.device.fleet_api import link as link_module
from edge_runtime.device.fleet_api.incoming import Incoming
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api.messages import Message
from edge_runtime.device.fleet_api.patience import Patience
from edge_runtime.device.fleet_api.wire import encode
from tests.support.fake_superlink import NODE, FakeSuperLink, pulled, sent, serve
from tests.support.superlink import free_port

BIG = os.urandom(11 << 20)
SIGNED_OUT = (401, {"detail": "Invalid SuperNode authentication"})
ENDED = (403, {"code": 2007, "detail": "The current run status does not allow this Fleet API operation."})


def test_a_message_is_pulled_fetched_confirmed_and_answered(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    assert link.pull() is None
    incoming = pulled(link, fake, {"bundle/a": BIG, "empty": b""})
    assert (incoming.type, incoming.node) == ("train.task", NODE)
    assert link.order(incoming) == (b'{"task": 1}', b"signed")
    files = link.files(incoming)
    link.fetch(incoming, files["bundle/a"], tmp_path / "a", sent(tmp_path, BIG))
    link.fetch(incoming, files["empty"], tmp_path / "e", sent(tmp_path, b""))
    assert (tmp_path / "a").read_bytes() == BIG
    assert (tmp_path / "e").read_bytes() == b""
    link.confirm(incoming)
    link.reply(incoming, b"{}", {"update": tmp_path / "a"}, seconds=2.0)
    assert fake.reply is not None
    metadata = fake.reply.messages_list[0].metadata
    assert metadata is not None
    assert metadata.reply_to_message_id == incoming.message_id
    assert metadata.message_id in fake.pushed
    assert b"".join(body[body.index(b"\0") + 1 :] for body in fake.pushed.values() if body[:10] == b"ArrayChunk") == BIG
    assert sorted(name.name for name in tmp_path.iterdir()) == ["a", "e", "expected"]


def test_a_message_is_kept_in_a_file_as_it_is(link: Link, fake: FakeSuperLink) -> None:
    import msgspec

    incoming = pulled(link, fake, {})
    assert msgspec.json.decode(msgspec.json.encode(incoming), type=Incoming) == incoming


def test_a_message_that_is_kept_no_more_is_gone(link: Link, fake: FakeSuperLink) -> None:
    incoming = pulled(link, fake, {})
    fake.objects.clear()
    with pytest.raises(errors.MessageGoneError, match="keeps the message no more"):
        link.order(incoming)


def test_a_reply_that_is_not_taken_says_so(link: Link, fake: FakeSuperLink) -> None:
    incoming = pulled(link, fake, {})
    fake.takes_replies = False
    with pytest.raises(errors.MessageGoneError, match="takes no reply"):
        link.reply(incoming, b"{}", {}, seconds=0.0)


def test_a_run_that_has_ended_says_so(link: Link, fake: FakeSuperLink) -> None:
    incoming = pulled(link, fake, {})
    fake.refusals["push-messages"] = [ENDED]
    with pytest.raises(errors.RunEndedError, match="the run has ended"):
        link.reply(incoming, b"{}", {}, seconds=0.0)


def test_a_reply_goes_on_where_its_session_was_lost(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {})
    (tmp_path / "update").write_bytes(BIG)
    fake.cut["push-object"] = 0
    fake.lost_sessions = 2
    link.reply(incoming, b"{}", {"update": tmp_path / "update"}, seconds=0.0)
    assert fake.sessions == 3
    assert fake.reply is not None and fake.reply.messages_list[0].metadata is not None
    assert fake.reply.messages_list[0].metadata.message_id in fake.pushed


def test_a_reply_after_a_restart_is_the_same_one(link: Link, fake: FakeSuperLink, key: NodeKey, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {})
    (tmp_path / "update").write_bytes(BIG)
    fake.refusals["push-object"] = [(200, encode(Message())), (200, b"\x08\x01")]
    at = time.time()
    stop = threading.Event()
    with serve(fake) as address, Link(address, ca=None, key=key, insecure=True, stop=stop) as killed:
        killed.activate()
        fake.refusals["push-object"] = [(503, {"detail": "x"})] * 50
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(errors.LinkStoppedError):
            killed.reply(incoming, b"{}", {"update": tmp_path / "update"}, seconds=0.0, created_at=at)
    fake.refusals.clear()
    first = fake.reply
    link.reply(incoming, b"{}", {"update": tmp_path / "update"}, seconds=0.0, created_at=at)
    assert fake.reply == first
    link.reply(incoming, b"{}", {"update": tmp_path / "update"}, seconds=0.0, created_at=at)  # it lacks nothing now


def test_a_file_that_changes_while_it_is_sent_is_one_line(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = pulled(link, fake, {})
    update = tmp_path / "update"
    update.write_bytes(BIG)
    real = fake.answer

    def answer(path: str, body: bytes) -> object:
        if path == "push-messages":
            update.write_bytes(b"short")
        return real(path, body)

    fake.answer = answer  # type: ignore[method-assign, assignment]
    with pytest.raises(ExecutionError, match="became shorter"):
        link.reply(incoming, b"{}", {"update": update}, seconds=0.0)


def test_a_message_of_somebody_else_is_answered_with_an_error(link: Link, fake: FakeSuperLink) -> None:
    incoming = pulled(link, fake, {})
    link.refuse(incoming, "not of a profl server")
    assert fake.reply is not None
    error = fake.reply.messages_list[0].error
    assert error is not None and error.reason == "not of a profl server"


def test_nothing_is_asked_for_a_message_that_has_expired(link: Link, fake: FakeSuperLink) -> None:
    incoming = pulled(link, fake, {}, ttl=-1.0)
    fake.refusals["pull-object"] = [(503, {"detail": "busy"})] * 9
    with pytest.raises(errors.MessageGoneError, match="expired 1 s ago"):
        link.order(incoming)


def test_a_link_that_is_down_comes_back(link: Link, fake: FakeSuperLink) -> None:
    fake.refusals["pull-messages"] = [(502, b"<html>"), (503, {"detail": "x"}), (500, {"detail": "x"})]
    assert link.pull() is None
    fake.cut["pull-messages"] = 0
    assert link.pull() is None


def test_an_outage_is_no_part_of_what_an_answer_took(
    link: Link, fake: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def wait(_: Patience, seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(Patience, "wait", wait)
    monkeypatch.setattr(link_module, "time", SimpleNamespace(monotonic=lambda: now))
    fake.refusals["pull-messages"] = [(503, {"detail": "starts"})] * 3
    assert link.pull() is None
    assert now > 0.0 and link.answered_in == 0.0


def test_a_deadline_ends_the_trying_and_the_notice_says_why(key: NodeKey) -> None:
    said: list[str] = []
    link = Link(f"localhost:{free_port()}", ca=None, key=key, insecure=True, notice=said.append)
    with pytest.raises(errors.LinkDownError, match="cannot be reached: Connection refused"):
        link.activate(time.monotonic() + 0.3)
    assert len(said) == 1 and said[0].endswith("; trying again")


def test_a_stop_ends_the_trying_at_once(key: NodeKey) -> None:
    stop = threading.Event()
    link = Link(f"localhost:{free_port()}", ca=None, key=key, insecure=True, stop=stop)
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(errors.LinkStoppedError):
        link.activate()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [(-60.0, "6[0-1] seconds ahead of"), (400.0, "(399|400) seconds behind")],
)
def test_a_wrong_clock_says_by_how_much(link: Link, fake: FakeSuperLink, ahead: float, said: str) -> None:
    fake.date = ahead
    fake.refusals["pull-messages"] = [SIGNED_OUT]
    with pytest.raises(errors.ClockError, match=said):
        link.pull()


def test_a_revoked_key_is_one_line(link: Link, fake: FakeSuperLink) -> None:
    fake.refusals["pull-messages"] = [SIGNED_OUT]
    with pytest.raises(errors.KeyRefusedError, match="does not know the key of this device"):
        link.pull()


def test_an_unexpected_answer_names_the_version(link: Link, fake: FakeSuperLink) -> None:
    fake.refusals["pull-messages"] = [(404, b"nginx")]
    with pytest.raises(errors.ProtocolError, match=r"answers pull-messages with 404: nginx; .*Flower 1\.41"):
        link.pull()
    fake.refusals["pull-messages"] = [(200, b"\xff\xff")]
    with pytest.raises(errors.ProtocolError, match="cannot be read"):
        link.pull()
    fake.refusals["pull-messages"] = [(200, bytes(5 << 20))]
    with pytest.raises(errors.ProtocolError, match="5242880 bytes"):
        link.pull()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",
    ],
)
def test_what_is_no_http_counts_as_a_link_that_is_down(key: NodeKey, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once() -> None:
            near, _ = listener.accept()
            near.recv(1 << 16)
            near.sendall(answer)
            near.close()

        threading.Thread(target=once, daemon=True).start()
        link = Link(f"127.0.0.1:{listener.getsockname()[1]}", ca=None, key=key, insecure=True, timeout=5)
        with pytest.raises(errors.LinkError) as caught:
            link.activate(time.monotonic())
    assert "\n" not in str(caught.value)
