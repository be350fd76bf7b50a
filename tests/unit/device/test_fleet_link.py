"""A link to a SuperLink that breaks off, refuses, forgets, and has another clock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed")

from device_profiles.errors import DigestError, ExecutionError, FormatError, UsageError
from device_profiles.federation import SentFile
from edge_runtime.device.fleet_api import errors, patience
from edge_runtime.device.fleet_api.address import Address
from edge_runtime.device.fleet_api.incoming import Incoming
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api.messages import Message
from edge_runtime.device.fleet_api.wire import encode
from tests.support.fake_superlink import NODE, FakeSuperLink, serve
from tests.support.superlink import free_port, write_certificates

BIG = os.urandom(11 << 20)
SIGNED_OUT = (401, {"detail": "Invalid SuperNode authentication"})
NOT_ACTIVATED = (412, {"code": 2004, "detail": "Failed to activate SuperNode."})
ENDED = (403, {"code": 2007, "detail": "The current run status does not allow this Fleet API operation."})


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> NodeKey:
    return NodeKey.create(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def fake() -> FakeSuperLink:
    return FakeSuperLink()


@pytest.fixture
def link(fake: FakeSuperLink, key: NodeKey) -> Iterator[Link]:
    with serve(fake) as address, Link(address, ca=None, key=key, insecure=True, timeout=10) as link:
        link.activate()
        yield link


def _pulled(link: Link, fake: FakeSuperLink, files: dict[str, bytes], ttl: float = 600.0) -> Incoming:
    fake.send(b'{"task": 1}', files, ttl=ttl)
    incoming = link.pull()
    assert incoming is not None
    return incoming


def _sent(tmp_path: Path, data: bytes) -> SentFile:
    (tmp_path / "expected").write_bytes(data)
    return SentFile.of(tmp_path / "expected")


def test_a_message_is_pulled_fetched_confirmed_and_answered(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    assert link.pull() is None
    incoming = _pulled(link, fake, {"bundle/a": BIG, "empty": b""})
    assert (incoming.type, incoming.node) == ("train.task", NODE)
    assert link.order(incoming) == (b'{"task": 1}', b"signed")
    files = link.files(incoming)
    link.fetch(incoming, files["bundle/a"], tmp_path / "a", _sent(tmp_path, BIG))
    link.fetch(incoming, files["empty"], tmp_path / "e", _sent(tmp_path, b""))
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

    incoming = _pulled(link, fake, {})
    assert msgspec.json.decode(msgspec.json.encode(incoming), type=Incoming) == incoming


@pytest.mark.parametrize("cut", [0, 3, 100_000, (5 << 20) - 1])
def test_a_connection_that_is_cut_in_a_chunk_is_no_loss(
    link: Link, fake: FakeSuperLink, tmp_path: Path, cut: int
) -> None:
    incoming = _pulled(link, fake, {"a": BIG})
    file = link.files(incoming)["a"]
    expected = _sent(tmp_path, BIG)
    fetched = []
    real = fake.answer

    def answer(path: str, body: bytes) -> object:
        if path == "pull-object":
            fetched.append(body)
            if len(fetched) == 3:  # the Array, a chunk, and this one
                fake.cut["pull-object"] = cut
        return real(path, body)

    fake.answer = answer  # type: ignore[method-assign, assignment]
    link.fetch(incoming, file, tmp_path / "a", expected)
    assert (tmp_path / "a").read_bytes() == BIG
    assert len(fetched) == 1 + 3 + 1


def test_chunks_of_an_earlier_attempt_are_not_fetched_again(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {"a": BIG})
    file = link.files(incoming)["a"]
    (tmp_path / "a.part").write_bytes(BIG[: 7 << 20])  # one whole chunk, and a part of the next
    fake.pulled.clear()
    link.fetch(incoming, file, tmp_path / "a", _sent(tmp_path, BIG))
    assert (tmp_path / "a").read_bytes() == BIG
    assert len(fake.pulled) == 1 + 2


def test_what_an_earlier_attempt_left_damaged_is_fetched_again(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {"a": BIG})
    (tmp_path / "a.part").write_bytes(b"x" + BIG[1:] + b"behind")
    link.fetch(incoming, link.files(incoming)["a"], tmp_path / "a", _sent(tmp_path, BIG))
    assert (tmp_path / "a").read_bytes() == BIG


def test_a_chunk_that_occurs_twice_is_fetched_once(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    data = bytes(16 << 20)
    incoming = _pulled(link, fake, {"a": data})
    file = link.files(incoming)["a"]
    fake.pulled.clear()
    link.fetch(incoming, file, tmp_path / "a", _sent(tmp_path, data))
    assert (tmp_path / "a").read_bytes() == data
    assert len(fake.pulled) == 1 + 2


def test_another_file_than_the_order_states_is_refused(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {"a": b"hostile", "b": b"longer than stated"})
    files = link.files(incoming)
    expected = _sent(tmp_path, b"hostilf")
    with pytest.raises(DigestError, match="another size or SHA-256"):
        link.fetch(incoming, files["a"], tmp_path / "a", expected)
    with pytest.raises(FormatError, match="larger than the 7 bytes"):
        link.fetch(incoming, files["b"], tmp_path / "b", expected)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_chunk_that_is_another_one_is_refused(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {"a": b"right"})
    (chunk,) = [name for name, content in fake.objects.items() if content == b"ArrayChunk  5\0right"]
    for content, said in (
        (b"ArrayChunk  5\0wrong", "another SHA-256"),
        (b"ArrayChunk  9\0right", "is no ArrayChunk"),
        (b"Array  5\0right", "is no ArrayChunk"),
        (b"x" * 500, "is no ArrayChunk"),
    ):
        fake.objects[chunk] = content
        with pytest.raises(FormatError, match=said):
            link.fetch(incoming, link.files(incoming)["a"], tmp_path / "a", _sent(tmp_path, b"right"))
    assert not (tmp_path / "a").exists()


def test_an_array_that_is_no_file_is_refused(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {})
    array = fake.put_file(b"x", stype="numpy.ndarray")
    with pytest.raises(FormatError, match=r"numpy\.ndarray"):
        link.fetch(incoming, array, tmp_path / "a", _sent(tmp_path, b"x"))


def test_a_small_object_is_bounded_and_verified(link: Link, fake: FakeSuperLink) -> None:
    incoming = _pulled(link, fake, {})
    fake.objects[incoming.message_id] = b"Message  0\0"
    with pytest.raises(DigestError, match="another SHA-256"):
        link.order(incoming)
    fake.objects[incoming.message_id] = bytes(5 << 20)
    with pytest.raises(FormatError, match="5242880 bytes, where 4194304 are the most"):
        link.order(incoming)


def test_a_disk_that_is_full_is_one_line(
    link: Link, fake: FakeSuperLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = _pulled(link, fake, {"a": BIG})
    file = link.files(incoming)["a"]
    real = os.pwrite

    def full(handle: int, data: bytes, place: int) -> int:
        if place > 6 << 20:
            raise OSError(28, "No space left on device")
        return real(handle, data, place)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ExecutionError, match=r"a: cannot be written: No space left on device"):
        link.fetch(incoming, file, tmp_path / "a", _sent(tmp_path, BIG))
    assert (tmp_path / "a.part").stat().st_size == 5 << 20
    monkeypatch.undo()
    link.fetch(incoming, file, tmp_path / "a", _sent(tmp_path, BIG))
    assert (tmp_path / "a").read_bytes() == BIG


def test_objects_that_are_still_on_their_way_are_waited_for(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {"a": b"late"})
    fake.late = dict.fromkeys(fake.objects, 1)
    link.fetch(incoming, link.files(incoming)["a"], tmp_path / "a", _sent(tmp_path, b"late"))
    assert (tmp_path / "a").read_bytes() == b"late"


def test_a_message_that_is_kept_no_more_is_gone(link: Link, fake: FakeSuperLink) -> None:
    incoming = _pulled(link, fake, {})
    fake.objects.clear()
    with pytest.raises(errors.MessageGoneError, match="keeps the message no more"):
        link.order(incoming)


def test_a_reply_that_is_not_taken_says_so(link: Link, fake: FakeSuperLink) -> None:
    incoming = _pulled(link, fake, {})
    fake.takes_replies = False
    with pytest.raises(errors.MessageGoneError, match="takes no reply"):
        link.reply(incoming, b"{}", {}, seconds=0.0)


def test_a_run_that_has_ended_says_so(link: Link, fake: FakeSuperLink) -> None:
    incoming = _pulled(link, fake, {})
    fake.refusals["push-messages"] = [ENDED]
    with pytest.raises(errors.RunEndedError, match="the run has ended"):
        link.reply(incoming, b"{}", {}, seconds=0.0)


def test_a_reply_goes_on_where_its_session_was_lost(link: Link, fake: FakeSuperLink, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {})
    (tmp_path / "update").write_bytes(BIG)
    fake.cut["push-object"] = 0
    fake.lost_sessions = 2
    link.reply(incoming, b"{}", {"update": tmp_path / "update"}, seconds=0.0)
    assert fake.sessions == 3
    assert fake.reply is not None and fake.reply.messages_list[0].metadata is not None
    assert fake.reply.messages_list[0].metadata.message_id in fake.pushed


def test_a_reply_after_a_restart_is_the_same_one(link: Link, fake: FakeSuperLink, key: NodeKey, tmp_path: Path) -> None:
    incoming = _pulled(link, fake, {})
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
    incoming = _pulled(link, fake, {})
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
    incoming = _pulled(link, fake, {})
    link.refuse(incoming, "not of a profl server")
    assert fake.reply is not None
    error = fake.reply.messages_list[0].error
    assert error is not None and error.reason == "not of a profl server"


def test_nothing_is_asked_for_a_message_that_has_expired(link: Link, fake: FakeSuperLink) -> None:
    incoming = _pulled(link, fake, {}, ttl=-1.0)
    fake.refusals["pull-object"] = [(503, {"detail": "busy"})] * 9
    with pytest.raises(errors.MessageGoneError, match="expired 1 s ago"):
        link.order(incoming)


def test_a_link_that_is_down_comes_back(link: Link, fake: FakeSuperLink) -> None:
    fake.refusals["pull-messages"] = [(502, b"<html>"), (503, {"detail": "x"}), (500, {"detail": "x"})]
    assert link.pull() is None
    fake.cut["pull-messages"] = 0
    assert link.pull() is None


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


def test_a_restart_is_taken_back_at_once(fake: FakeSuperLink, key: NodeKey, tmp_path: Path) -> None:
    node = tmp_path / "node"
    with serve(fake) as address:
        with Link(address, ca=None, key=key, insecure=True, node_file=node) as first:
            first.activate()
        assert node.read_text() == f"{NODE}\n"
        fake.refusals["activate-node"] = [NOT_ACTIVATED]  # it is online
        with Link(address, ca=None, key=key, insecure=True, node_file=node) as second:
            assert second.activate() == NODE


def test_an_unknown_key_is_refused_at_once(fake: FakeSuperLink, key: NodeKey, tmp_path: Path) -> None:
    fake.refusals["activate-node"] = [NOT_ACTIVATED]
    with (
        serve(fake) as address,
        Link(address, ca=None, key=key, insecure=True, node_file=tmp_path / "node") as link,
        pytest.raises(errors.KeyRefusedError, match=r"does not know the key.*or a device with the same key is online"),
    ):
        link.activate()


def test_a_process_that_was_killed_before_it_knew_its_node_waits(
    fake: FakeSuperLink, key: NodeKey, tmp_path: Path
) -> None:
    (tmp_path / "node").touch()
    fake.refusals["activate-node"] = [NOT_ACTIVATED, NOT_ACTIVATED]
    with (
        serve(fake) as address,
        Link(address, ca=None, key=key, insecure=True, node_file=tmp_path / "node") as link,
    ):
        assert link.activate() == NODE


def test_the_number_of_another_federation_is_forgotten(fake: FakeSuperLink, key: NodeKey, tmp_path: Path) -> None:
    (tmp_path / "node").write_text("5\n")
    fake.refusals["send-node-heartbeat"] = [SIGNED_OUT]
    with (
        serve(fake) as address,
        Link(address, ca=None, key=key, insecure=True, node_file=tmp_path / "node") as link,
    ):
        assert link.activate() == NODE
    assert (tmp_path / "node").read_text() == f"{NODE}\n"


def test_heartbeats_go_on_while_the_link_is_not_used(
    fake: FakeSuperLink, key: NodeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.device.fleet_api import membership

    monkeypatch.setattr(membership, "HEARTBEAT_SECONDS", 0.1)
    with serve(fake) as address, Link(address, ca=None, key=key, insecure=True) as link:
        link.activate()
        start = len(fake.calls)
        time.sleep(0.5)
        assert [path for path, _ in fake.calls[start:]].count("send-node-heartbeat") >= 2
        assert link.lost is None
        fake.refusals["send-node-heartbeat"] = [SIGNED_OUT] * 20
        time.sleep(0.3)
        assert isinstance(link.lost, errors.KeyRefusedError)


def test_tls_is_verified(fake: FakeSuperLink, key: NodeKey, certificates: Path, tmp_path: Path) -> None:
    write_certificates(tmp_path / "other")
    with serve(fake, certificates) as address:
        with Link(address, ca=certificates / "ca.crt", key=key) as link:
            assert link.activate() == NODE
        host, _, port = address.rpartition(":")
        stranger = Link(address, ca=tmp_path / "other" / "ca.crt", key=key)
        with pytest.raises(errors.CertificateError, match=r"does not prove itself by .*ca\.crt"):
            stranger.activate()
        wrong_host = Link(f"127.0.0.2:{port}", ca=certificates / "ca.crt", key=key)
        with pytest.raises(errors.LinkError, match=r"does not prove itself|cannot be reached"):
            wrong_host.activate(time.monotonic() + 0.2)
    assert host == "localhost"
    assert [path for path, _ in fake.calls] == ["activate-node", "send-node-heartbeat"]


def test_a_certificate_that_has_expired_asks_about_the_clock(fake: FakeSuperLink, key: NodeKey, tmp_path: Path) -> None:
    write_certificates(tmp_path, days=-1)
    with serve(fake, tmp_path) as address, pytest.raises(errors.CertificateError, match=r"expired .* clock .* says 2"):
        Link(address, ca=tmp_path / "ca.crt", key=key).activate()


def test_a_port_without_tls_is_named(fake: FakeSuperLink, key: NodeKey, certificates: Path) -> None:
    with serve(fake) as address, pytest.raises(errors.CertificateError, match="does not speak TLS"):
        Link(address, ca=certificates / "ca.crt", key=key).activate()
    assert fake.calls == []


@pytest.mark.parametrize("address", ["10.0.0.1:9092", "fleet.local:9092", "localhost.evil.org:1", "[2001:db8::1]:1"])
def test_plain_http_is_for_this_machine_alone(address: str, key: NodeKey) -> None:
    with pytest.raises(UsageError, match=r"--insecure: .* is another machine"):
        Link(address, ca=None, key=key, insecure=True)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:0", "host:65536", "http://host:1", "::1", "a:b:1"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Address.parse(address)


def test_addresses_are_read() -> None:
    assert Address.parse("[::1]:9092") == Address("::1", 9092)
    assert str(Address.parse("[::1]:9092")) == "[::1]:9092"
    assert Address.parse("[::1]:9092").is_loopback


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_certificate_that_cannot_be_read_names_the_option(
    key: NodeKey, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "ca.crt").write_bytes(content)
    with pytest.raises(UsageError, match=r"--ca .*ca\.crt: (cannot be read|holds no certificate)"):
        Link("localhost:1", ca=tmp_path / "ca.crt", key=key)
