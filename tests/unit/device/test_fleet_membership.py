"""Whom a device believes to be its SuperLink, and how it becomes a node of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed")

from device_profiles.errors import UsageError
from edge_runtime.device.fleet_api import errors
from edge_runtime.device.fleet_api.address import Address
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api.membership import heartbeat_seconds
from tests.support.fake_superlink import NODE, FakeSuperLink, serve
from tests.support.superlink import write_certificates

SIGNED_OUT = (401, {"detail": "Invalid SuperNode authentication"})
NOT_ACTIVATED = (412, {"code": 2004, "detail": "Failed to activate SuperNode."})


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
    monkeypatch.setattr(membership, "MOST_HEARTBEAT_SECONDS", 0.1)
    with serve(fake) as address, Link(address, ca=None, key=key, insecure=True) as link:
        link.activate()
        start = len(fake.calls)
        _wait(lambda: [path for path, _ in fake.calls[start:]].count("send-node-heartbeat") >= 2)
        assert link.lost is None
        fake.refusals["send-node-heartbeat"] = [SIGNED_OUT] * 10000
        _wait(lambda: isinstance(link.lost, errors.KeyRefusedError))


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_busy_superlink_gets_fewer_heartbeats() -> None:
    assert heartbeat_seconds(0.02) == 30.0
    assert heartbeat_seconds(0.4) == 120.0
    assert heartbeat_seconds(30.0) == 300.0


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
    with pytest.raises(UsageError, match=r"is another machine"):
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
    with pytest.raises(UsageError, match=r"ca\.crt: (the certificate cannot be read|holds no certificate)"):
        Link("localhost:1", ca=tmp_path / "ca.crt", key=key)
