"""A federation as a person starts it: its devices come in, others do not, and nothing is left of it in the end."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("flwr")

from device_profiles.errors import UsageError
from device_profiles.invitation import decode_invitation
from edge_runtime.device.fleet_api.address import Address, tls_context
from edge_runtime.device.fleet_api.connection import Connection
from edge_runtime.device.fleet_api.errors import KeyRefusedError, ProtocolError
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api.messages import Message as ProtoMessage
from edge_runtime.device.fleet_api.messages import Metadata, Node, PushMessagesRequest, PushMessagesResponse
from server.federation.home.certificates import authority_file
from server.federation.home.folder import FederationFolder
from server.federation.home.keys import new_key, openssh
from server.federation.processes import left_over, running
from server.federation.status import StatusReader
from server.federation.submit import CONFIG, run_log, submit_run, wait_run
from tests.support.flower_project import flower_project
from tests.support.superlink import OFFLINE, supernode_command

_PROJECT = flower_project("asks", server="asks.app:server", client="asks.app:client", config=CONFIG)
_ASKS = """
import time
from pathlib import Path
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
server, client = ServerApp(), ClientApp()
@server.main()
def main(grid, context):
    print("nodes", *sorted(grid.get_node_ids()), flush=True)
    Path(str(context.run_config["run"])).write_text(str(context.run_config["resume"]))
    while context.run_config["resume"]:
        grid.get_node_ids()
        time.sleep(0.1)
"""


def _server(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "federation", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **OFFLINE})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[FederationFolder]:
    place = FederationFolder.at(tmp_path / "federation")
    yield place
    if place.exists:
        _server("down", place.path)


def _add(folder: FederationFolder, name: str, *more: object) -> str:
    done = _server("add-device", name, "--federation", folder.path, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return done.stdout.split(" --invite ")[1].split(" ")[0]


def _status(folder: FederationFolder) -> dict[str, str]:
    return {device.name: device.connection for device in StatusReader(folder).read().devices}


def _link(folder: FederationFolder, address: str, key: bytes | str, name: str) -> Link:
    file = folder.path.parent / f"{name}.key"
    file.write_text(key if isinstance(key, str) else key.decode())
    file.chmod(0o600)
    return Link(address, ca=authority_file(folder), key=NodeKey.load(file))


def _answer(folder: FederationFolder, port: int, path: str) -> int:
    """Status of an answer to a request without a body."""
    context = ssl.create_default_context(cafile=str(authority_file(folder)))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as link,
    ):
        link.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n".encode())
        link.sendall(b"Content-Type: application/protobuf\r\nAccept: application/protobuf\r\n\r\n")
        return int(link.recv(4096).split(b" ")[1])


@pytest.mark.timeout(400)
def test_a_federation_from_up_to_down(folder: FederationFolder, tmp_path: Path) -> None:
    done = _server("up", folder.path, "--port", 0, "--detach")
    assert done.returncode == 0, done.stderr
    state = running(folder)
    assert state is not None and f"the federation is up at {state.address}" in done.stderr

    light = decode_invitation(_add(folder, "light", "--data", "digits", "--memory-limit", "128MB"))
    _add(folder, "stock", "--keep-key", tmp_path / "stock.key")
    taken = _server("add-device", "light", "--federation", folder.path)
    assert taken.returncode == 2 and taken.stderr.startswith("profl-server: error: light: is a device")
    shown = json.loads(_server("status", folder.path, "--json").stdout)
    assert [device["connection"] for device in shown["devices"]] == ["never connected"] * 2

    # Only whoever can read the folder starts runs, and from the network nobody does.
    assert _answer(folder, state.port, "/v1/control/start-run") == 404
    assert _answer(folder, state.port, "/v1/runtime/acquire-task") == 404
    assert _answer(folder, state.inner_port, "/v1/control/list-nodes") == 401
    assert _answer(folder, state.inner_port, "/v1/runtime/acquire-task") == 401

    with pytest.raises(KeyRefusedError), _link(folder, light.address, openssh(new_key()), "unknown") as unknown:
        unknown.activate()
    command, environment = supernode_command(folder.path / "keys" / "ca.pem", light.address, tmp_path / "stock.key")
    environment["FLWR_HOME"] = str(tmp_path / "flwr")
    with (
        (tmp_path / "supernode.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as stock,
        _link(folder, light.address, light.key, "light") as link,
    ):
        try:
            node = link.activate()
            _answers_in_its_own_name(folder, light.address, node)
            deadline = time.monotonic() + 120
            while _status(folder) != {"light": "online", "stock": "online"}:
                time.sleep(0.2)
                assert time.monotonic() < deadline and stock.poll() is None, (tmp_path / "supernode.log").read_text()
            _runs_an_app(folder, tmp_path)
            assert _server("remove-device", "light", "--federation", folder.path).returncode == 0
            with pytest.raises(KeyRefusedError):
                link.pull(deadline=time.monotonic() + 5)
            assert _status(folder) == {"stock": "online"}
            _comes_back(folder)
        finally:
            for process in [*psutil.Process(stock.pid).children(recursive=True), stock]:
                process.kill()

    assert _server("down", folder.path).returncode == 0
    assert left_over(folder) == [] and running(folder) is None
    assert _server("down", folder.path).stderr == "the federation was not up\n"
    again = _server("status", folder.path).stdout
    assert again.startswith("The federation is down") and "stock" in again


def _answers_in_its_own_name(folder: FederationFolder, address: str, node: int) -> None:
    """Flower itself takes an answer in the name of another node, and then refuses the real one."""
    where = Address.parse(address)
    key = NodeKey.load(folder.path.parent / "light.key")
    context = tls_context(where, authority_file(folder), insecure=False)
    thief = Connection(where, context, key, ca=authority_file(folder), timeout=10)
    said = Metadata(run_id=1, message_id="0" * 64, src_node_id=node + 1, dst_node_id=1, reply_to_message_id="1" * 64)
    request = PushMessagesRequest(node=Node(node_id=node), messages_list=(ProtoMessage(metadata=said),))
    with pytest.raises(ProtocolError, match="answers push-messages with 403"):
        thief.ask("push-messages", request, PushMessagesResponse)
    thief.close()


def _runs_an_app(folder: FederationFolder, tmp_path: Path) -> None:
    app = tmp_path / "asks"
    (app / "asks").mkdir(parents=True)
    (app / "LICENSE").write_text("Apache-2.0\n")
    (app / "pyproject.toml").write_text(_PROJECT)
    (app / "asks" / "app.py").write_text(_ASKS)
    (app / "asks" / "__init__.py").write_text('"""An app."""\n')

    def submit(*, forever: bool) -> int:
        return submit_run(folder.path, tmp_path / "fleet.toml", tmp_path / "run", resume=forever, app=app)

    first = submit(forever=True)
    _wait_for((tmp_path / "run").exists)
    with pytest.raises(UsageError, match=rf"trains already: {tmp_path}/run; wait for its end, or stop it"):
        submit(forever=False)
    for process in _processes(folder, "flwr_serverapp()"):
        process.kill()
    ended = wait_run(folder.path, first)
    assert ended.is_finished and not ended.succeeded
    number = submit(forever=False)
    ended = wait_run(folder.path, number)
    assert ended.succeeded, ended
    assert (tmp_path / "run").read_text() == "False"
    nodes = json.loads((folder.path / "devices.json").read_text())["devices"]
    assert "nodes " + " ".join(str(n) for n in sorted(d["node_id"] for d in nodes)) in "".join(
        run_log(folder.path, number)
    )


def _comes_back(folder: FederationFolder) -> None:
    """A SuperLink that is killed is started again, with the same devices; also one that is killed while it starts."""
    killed: list[int] = []

    def superlinks() -> list[psutil.Process]:
        found = _processes(folder, "server.federation.flower.superlink")
        return [process for process in found if process.pid not in killed]

    for _ in range(2):
        _wait_for(lambda: bool(superlinks()))
        (process,) = superlinks()
        killed.append(process.pid)
        process.kill()
    _wait_for(lambda: bool(superlinks()) and _status(folder).get("stock") == "online")


def _processes(folder: FederationFolder, part: str) -> list[psutil.Process]:
    return [process for process in left_over(folder) if part in " ".join(process.cmdline())]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
