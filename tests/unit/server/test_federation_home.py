"""The folder of a federation: who may read it, its certificates and keys, and its list of devices."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("cryptography")
from cryptography import x509

from device_profiles.errors import FormatError, UsageError
from server.federation.home.addresses import (
    certificate_names,
    check_hosts,
    is_loopback,
    listen,
    moved_note,
    public_address,
)
from server.federation.home.certificates import authority_file, make_certificates, server_files
from server.federation.home.devices import (
    Devices,
    editing,
    new_device,
    node_names,
    read_devices,
    write_devices,
)
from server.federation.home.folder import FederationFolder, Settings
from server.federation.home.keys import control_token, load_key, new_key, openssh, order_key_file, public_pem
from server.federation.home.logs import last_line, open_log


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[FederationFolder]:
    before = os.umask(0o022)
    place = FederationFolder.at(tmp_path / "federation")
    place.make()
    yield place
    os.umask(before)


def _names(folder: FederationFolder) -> list[str]:
    certificate = x509.load_pem_x509_certificate(server_files(folder)[0].read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(str(name.value) for name in found)


def test_nobody_else_can_read_what_is_made(folder: FederationFolder) -> None:
    make_certificates(folder, ["board.local"])
    order_key_file(folder)
    control_token(folder)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.keys.iterdir()} == {0o600}


def test_a_key_that_others_can_read_is_refused_with_the_remedy(folder: FederationFolder) -> None:
    folder.keep(Settings())
    order_key_file(folder).chmod(0o644)
    with pytest.raises(UsageError, match=r"orders\.key: others may read it; chmod -R go= "):
        folder.make()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        FederationFolder.at(tmp_path).make()
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_without_a_federation_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"is not the folder of a federation; make one with profl-server federation up"
    ):
        FederationFolder.at(tmp_path).settings()


def test_one_process_at_a_time_holds_the_lock(folder: FederationFolder) -> None:
    def lock() -> AbstractContextManager[None]:
        return folder.locked("up", wait=False, held="is up already")

    with lock(), pytest.raises(UsageError, match="is up already"), lock():
        pass
    with lock():
        pass


def test_the_certificate_is_kept_until_its_names_differ_or_its_end_is_near(folder: FederationFolder) -> None:
    assert make_certificates(folder, ["192.168.1.5"])
    assert not make_certificates(folder, ["192.168.1.5"])
    assert _names(folder) == ["127.0.0.1", "192.168.1.5", "localhost"]
    authority = authority_file(folder).read_bytes()
    assert make_certificates(folder, ["server.local", "fd00::1"])
    assert _names(folder) == ["127.0.0.1", "fd00::1", "localhost", "server.local"]
    assert make_certificates(folder, ["server.local", "fd00::1"], now=datetime.now(UTC) + timedelta(days=700))
    assert authority_file(folder).read_bytes() == authority, "devices would have to be invited again"


def test_an_authority_near_its_end_is_a_line_that_says_what_to_do(folder: FederationFolder) -> None:
    make_certificates(folder, ["localhost"])
    with pytest.raises(FormatError, match=r"ca\.pem: ends 20\d\d-.*invite its devices again"):
        make_certificates(folder, ["localhost"], now=datetime.now(UTC) + timedelta(days=3600))


@pytest.mark.parametrize("name", ["ca.pem", "ca.key"])
def test_a_damaged_authority_is_named_and_not_replaced(folder: FederationFolder, name: str) -> None:
    make_certificates(folder, ["localhost"])
    (folder.keys / name).write_text("damaged")
    with pytest.raises(FormatError, match=name):
        make_certificates(folder, ["other"])
    assert (folder.keys / name).read_text() == "damaged"


def test_whoever_trusts_the_authority_reaches_the_server_by_its_names_alone(folder: FederationFolder) -> None:
    make_certificates(folder, ["server.local"])
    certificate, key = server_files(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(authority_file(folder)))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _shakes_hands(client, server, "server.local")
    assert not _shakes_hands(client, server, "other.local")


def _shakes_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> bool:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()
    return True


def test_keys_are_made_once(folder: FederationFolder) -> None:
    first = load_key(order_key_file(folder))
    assert public_pem(load_key(order_key_file(folder))) == public_pem(first)
    assert control_token(folder) == control_token(folder)
    assert openssh(new_key()).startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")


def test_a_key_of_another_kind_is_named(folder: FederationFolder) -> None:
    order_key_file(folder).write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(FormatError, match=r"orders\.key: is not a private key"):
        load_key(order_key_file(folder))


def test_devices_are_kept_with_their_numbers(folder: FederationFolder) -> None:
    board = new_device("board1", "PEM 1", memory_limit_bytes=128 << 20, data="digits")
    with editing(folder) as devices:
        write_devices(folder, devices.with_device(board).with_node_ids({"PEM 1": 2**64 - 1}))
    assert read_devices(folder).devices == (msgspec.structs.replace(board, node_id=2**64 - 1),)
    assert node_names(folder.path) == {2**64 - 1: "board1"}
    assert stat.S_IMODE((folder.path / "devices.json").stat().st_mode) == 0o600


def test_a_name_is_one_device(folder: FederationFolder) -> None:
    board = new_device("board1", "PEM", memory_limit_bytes=None, data=None)
    devices = Devices().with_device(board)
    with pytest.raises(UsageError, match=r"board1: is a device of the federation already; choose another name"):
        devices.with_device(board)
    with pytest.raises(UsageError, match=r"board2: is no device of the federation; its devices: board1"):
        devices.without("board2")
    assert devices.without("board1") == Devices()


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "n" * 65, "böard", "a\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name of a device; write 1 to 64 letters"):
        new_device(name, "PEM", memory_limit_bytes=None, data=None)


@pytest.mark.parametrize("text", ["{", '{"devices": [{}]}', '{"devices": [], "more": 1}', '{"devices": [{"name": 3}]}'])
def test_a_damaged_list_of_devices_is_named(folder: FederationFolder, text: str) -> None:
    (folder.path / "devices.json").write_text(text)
    with pytest.raises(FormatError, match=r"devices\.json"):
        read_devices(folder)


@pytest.mark.parametrize("host", ["", "a b", "-x.local", "http://board", "192.168.1.5:80", "n" * 254, "board\n"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match=r"--host .* is neither an address nor a name"):
        check_hosts([host])


def test_hosts_say_what_devices_dial_and_what_the_certificate_names() -> None:
    check_hosts(["192.168.1.5", "server.local", "fd00::1", "0.0.0.0"])
    assert public_address(["fd00::1", "server.local"], 9092) == "[fd00::1]:9092"
    assert public_address(["server.local"], 1) == "server.local:1"
    assert certificate_names(["192.168.1.5", "server.local"]) == ["192.168.1.5", "server.local"]
    assert socket.gethostname() in certificate_names(["0.0.0.0"])
    assert "0.0.0.0" not in certificate_names(["0.0.0.0"])
    assert is_loopback(["localhost", "127.0.0.1", "::1"]) and not is_loopback(["127.0.0.1", "10.0.0.1"])


def test_a_loopback_host_is_listened_at_alone_and_a_taken_port_is_a_line() -> None:
    (opened,) = listen(["127.0.0.1", "localhost"], 0)
    with opened:
        address, port = opened.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(
            UsageError, match=rf"--host 127\.0\.0\.1 --port {port}: cannot listen there: .*another port"
        ):
            listen(["127.0.0.1"], port)


def test_a_name_is_listened_at_everywhere() -> None:
    (opened,) = listen(["server.local"], 0)
    with opened:
        assert opened.getsockname()[0] == "0.0.0.0"


def test_logs_are_private_and_the_last_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    assert last_line(path) == ""
    with open_log(path) as log:
        log.write(b"first\nlast  \n\n")
    assert last_line(path) == "last" and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"x" * (5 << 20))
    with open_log(path) as log:
        log.write(b"new\n")
    assert path.read_bytes() == b"new\n" and (tmp_path / "one.log.1").stat().st_size == 5 << 20


def test_devices_that_were_told_another_address_are_spoken_of() -> None:
    assert moved_note("", "10.0.0.2:9092") is None
    assert moved_note("10.0.0.2:9092", "10.0.0.2:9092") is None
    note = moved_note("10.0.0.2:9092", "10.0.0.3:9092")
    assert note is not None and note.endswith("on each, run profl-edge join 10.0.0.3:9092")
