"""A device's link to a real SuperLink of flwr, with TLS and authentication, beside a stock SuperNode."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: profl-edge[federation]")


from device_profiles.federation import SentFile
from edge_runtime.device.fleet_api import connection, errors
from edge_runtime.device.fleet_api.address import Address, tls_context
from edge_runtime.device.fleet_api.connection import Connection
from edge_runtime.device.fleet_api.incoming import Incoming
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api.messages import Node, PullMessagesRequest, PullMessagesResponse
from tests.support.fleet_faults import TORN, Cutter
from tests.support.superlink import Rounds, SuperLink

FILE = os.urandom(12 << 20)


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    superlink = SuperLink(tmp_path_factory.mktemp("superlink"))
    try:
        superlink.start()
        yield superlink
    finally:
        superlink.stop()


@pytest.fixture(scope="module")
def rounds(superlink: SuperLink) -> Iterator[Rounds]:
    rounds = superlink.run()
    yield rounds
    rounds.end()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(FILE)
    return path


@pytest.fixture
def key(superlink: SuperLink, tmp_path: Path) -> NodeKey:
    key = NodeKey.create(tmp_path / "key")
    superlink.register(key.public_pem)
    return key


def _next(link: Link, seconds: float = 30.0) -> Incoming:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        incoming = link.pull()
        if incoming is not None:
            return incoming
        time.sleep(0.1)
    raise AssertionError("no message came")


def _work(link: Link, folder: Path, expected: SentFile) -> None:
    incoming = _next(link)
    link.fetch(incoming, link.files(incoming)["file"], folder / "fetched", expected)
    link.confirm(incoming)
    link.reply(incoming, b'{"light": true}', {"file": folder / "fetched"}, seconds=0.5)


def test_a_device_and_a_stock_node_answer_the_same_message(
    superlink: SuperLink, rounds: Rounds, key: NodeKey, tmp_path: Path, file: Path
) -> None:
    stock = superlink.start_node(tmp_path / "stock")
    with Link(superlink.address, ca=superlink.ca, key=key) as link:
        node = link.activate()
        document = '{"round": 1, "text": "é"}'
        (tmp_path / "empty").touch()
        number = rounds.ask([node, stock], document, {"file": file, "empty": tmp_path / "empty"}, signature="0102")
        incoming = _next(link)
        assert link.order(incoming) == (document.encode(), b"\x01\x02")
        assert incoming.type == "train.task"
        names = link.files(incoming)
        link.fetch(incoming, names["file"], tmp_path / "fetched", SentFile.of(file))
        link.fetch(incoming, names["empty"], tmp_path / "fetched-empty", SentFile.of(tmp_path / "empty"))
        link.confirm(incoming)
        files = {"file": tmp_path / "fetched", "empty": tmp_path / "fetched-empty"}
        link.reply(incoming, b'{"light": true}', files, seconds=0.5)
        assert rounds.answer(number, node) == {"light": True}
        assert rounds.answer(number, stock) == {"stock": True}
        assert rounds.done(number)["answers"] == 2
        for who in (node, stock):
            assert rounds.file(number, who, "file").read_bytes() == FILE
            assert rounds.file(number, who, "empty").read_bytes() == b""
        with pytest.raises(errors.MessageGoneError, match="keeps the message no more"):
            link.fetch(incoming, names["file"], tmp_path / "again", SentFile.of(file))
        with pytest.raises(errors.MessageGoneError, match="takes no reply"):
            link.reply(incoming, b'{"second": true}', {}, seconds=0.5)
        link.deactivate()


def test_a_refusal_reaches_the_server(superlink: SuperLink, rounds: Rounds, key: NodeKey) -> None:
    with Link(superlink.address, ca=superlink.ca, key=key) as link:
        number = rounds.ask([node := link.activate()], kind="query.other")
        link.refuse(_next(link), "not of a profl server")
        assert rounds.answer(number, node) == {"error": [2, "not of a profl server"]}


def test_a_stranger_another_node_and_an_old_signature_get_nothing(
    superlink: SuperLink, rounds: Rounds, key: NodeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger_key = NodeKey.create(tmp_path / "stranger")
    with pytest.raises(errors.KeyRefusedError, match="does not know the key"):
        Link(superlink.address, ca=superlink.ca, key=stranger_key).activate()
    with Link(superlink.address, ca=superlink.ca, key=key) as link:
        node = link.activate()
        number = rounds.ask([node])
        time.sleep(1.0)
        other_key = NodeKey.create(tmp_path / "other")
        superlink.register(other_key.public_pem)
        where = Address.parse(superlink.address)
        context = tls_context(where, superlink.ca, insecure=False)
        request = PullMessagesRequest(node=Node(node_id=node))
        for thief in (stranger_key, other_key):
            stolen = Connection(where, context, thief, ca=superlink.ca, timeout=10)
            with pytest.raises(errors.KeyRefusedError):
                stolen.ask("pull-messages", request, PullMessagesResponse)
        own = Connection(where, context, key, ca=superlink.ca, timeout=10)
        signed = own._signed()
        monkeypatch.setattr(own, "_signed", lambda: {**signed, "flwr-timestamp": "2026-01-01T00:00:00+00:00"})
        with pytest.raises(errors.KeyRefusedError):  # the signature of another time
            own.ask("pull-messages", request, PullMessagesResponse)
        now = time.time()
        for ahead, which in ((-900, "behind"), (60, "ahead of")):
            late = Connection(where, context, key, ca=superlink.ca, timeout=10)
            with monkeypatch.context() as patch:
                patch.setattr(connection.time, "time", lambda ahead=ahead: now + ahead)
                with pytest.raises(errors.ClockError, match=which):
                    late.ask("pull-messages", request, PullMessagesResponse)
        incoming = _next(link)
        with Link(superlink.address, ca=superlink.ca, key=other_key) as thief:
            stolen_message = msgspec.structs.replace(incoming, node=thief.activate())
            with pytest.raises(errors.MessageGoneError, match="takes no reply"):
                thief.reply(stolen_message, b'{"stolen": true}', {}, seconds=0.0)
            thief.deactivate()
        link.reply(incoming, b'{"own": true}', {}, seconds=0.0)
        assert rounds.answer(number, node) == {"own": True}
        assert rounds.done(number)["answers"] == 1


def test_a_revoked_key_ends_the_link(superlink: SuperLink, key: NodeKey) -> None:
    with Link(superlink.address, ca=superlink.ca, key=key) as link:
        superlink.unregister(link.activate())
        with pytest.raises(errors.KeyRefusedError, match="does not know the key of this device"):
            link.pull()


def test_a_process_that_is_killed_while_it_fetches_is_taken_back_at_once(
    superlink: SuperLink, rounds: Rounds, key: NodeKey, tmp_path: Path, file: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(superlink.ca.read_bytes())
    expected = SentFile.of(file)
    arguments = [superlink.address, str(tmp_path), expected.sha256, str(expected.bytes)]
    torn = subprocess.Popen([sys.executable, "-c", TORN, *arguments])
    deadline = time.monotonic() + 20
    while not (tmp_path / "node").exists() or not (tmp_path / "node").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    node = int((tmp_path / "node").read_text())
    number = rounds.ask([node], files={"file": file})
    assert torn.wait(30) == -signal.SIGKILL
    incoming = msgspec.json.decode((tmp_path / "incoming").read_bytes(), type=Incoming)
    with Link(superlink.address, ca=superlink.ca, key=key, node_file=tmp_path / "node") as link:
        start = time.monotonic()
        assert link.activate() == node
        assert time.monotonic() - start < 5
        name = link.files(incoming)["file"]
        assert (tmp_path / "fetched.part").stat().st_size >= 5 << 20
        link.fetch(incoming, name, tmp_path / "fetched", expected)
        link.confirm(incoming)
        link.reply(incoming, b'{"again": true}', {"file": tmp_path / "fetched"}, seconds=0.5)
    assert rounds.answer(number, node) == {"again": True}
    assert rounds.done(number)["answers"] == 1
    assert rounds.file(number, node, "file").read_bytes() == FILE


def test_a_connection_that_is_cut_in_a_chunk_goes_on(
    superlink: SuperLink, rounds: Rounds, key: NodeKey, tmp_path: Path, file: Path
) -> None:
    with Cutter(superlink.port, [7 << 20, 13 << 20, 2 << 20]) as port:
        said: list[str] = []
        with Link(f"localhost:{port}", ca=superlink.ca, key=key, notice=said.append) as link:
            number = rounds.ask([node := link.activate()], files={"file": file})
            _work(link, tmp_path, SentFile.of(file))
        assert rounds.done(number)["answers"] == 1
        assert rounds.file(number, node, "file").read_bytes() == FILE
        assert any("cannot be reached" in line for line in said)


def test_a_superlink_that_is_killed_is_found_again(
    superlink: SuperLink, rounds: Rounds, key: NodeKey, tmp_path: Path, file: Path
) -> None:
    said: list[str] = []
    with Link(superlink.address, ca=superlink.ca, key=key, notice=said.append) as link:
        node = link.activate()
        rounds.ask([node], files={"file": file})
        lost = _next(link)
        superlink.kill()
        starter = threading.Timer(1.0, superlink.start)
        starter.start()
        # Its server app died with it, and the run with that: the message is of no use any more, and says so.
        try:
            link.fetch(lost, link.files(lost)["file"], tmp_path / "lost", SentFile.of(file))
            link.reply(lost, b"{}", {}, seconds=0.0)
        except (errors.RunEndedError, errors.MessageGoneError):
            pass
        starter.join()
        assert said[0].endswith("trying again") and said[-1] == "the SuperLink is back"
        again = superlink.run()
        number = again.ask([node], files={"file": file})
        _work(link, tmp_path, SentFile.of(file))
        assert again.done(number)["answers"] == 1
        again.end()


def test_tls_is_at_least_1_2(superlink: SuperLink) -> None:
    context = tls_context(Address.parse(superlink.address), superlink.ca, insecure=False)
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2 and context.check_hostname
