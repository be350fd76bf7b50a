"""The SuperLink is brought to the list of devices; processes of a federation are told from others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("cryptography")

from server.federation.home.devices import Devices, new_device
from server.federation.home.folder import FederationFolder
from server.federation.membership import reconcile
from server.federation.processes import Running, end, end_federation, environment, left_over, running, set_running

SLEEP = [sys.executable, "-c", "import time; print('x', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)",
]


class FakeSuperLink:
    """Nodes by public key."""

    def __init__(self, **nodes: int) -> None:
        self.nodes = nodes
        self.done: list[tuple[str, object]] = []

    def known(self) -> dict[str, int]:
        return dict(self.nodes)

    def register(self, public_key: str, name: str) -> int:
        self.done.append(("register", name))
        self.nodes[public_key] = 100 + len(self.nodes)
        return self.nodes[public_key]

    def unregister(self, node_id: int) -> None:
        self.done.append(("unregister", node_id))
        self.nodes = {key: node for key, node in self.nodes.items() if node != node_id}


def _devices(**keys: str) -> Devices:
    devices = Devices()
    for name, key in keys.items():
        devices = devices.with_device(new_device(name, key, memory_limit_bytes=None, data=None))
    return devices


def test_who_is_missing_is_registered_and_who_is_not_named_is_removed() -> None:
    superlink = FakeSuperLink(A=1, X=7)
    devices = reconcile(_devices(board1="A", board2="B"), superlink)
    assert superlink.done == [("unregister", 7), ("register", "board2")]
    assert [device.node_id for device in devices.devices] == [1, superlink.nodes["B"]]
    superlink.done.clear()
    assert reconcile(devices, superlink) == devices and superlink.done == []


def test_a_lost_database_gets_everybody_again() -> None:
    devices = _devices(board1="A", board2="B").with_node_ids({"A": 1, "B": 2})
    again = reconcile(devices, FakeSuperLink())
    assert [device.node_id for device in again.devices] == [100, 101]


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    place = FederationFolder.at(tmp_path / "federation")
    place.make()
    return place


def _start(folder: FederationFolder, command: list[str]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"x\n"
    return child


def test_processes_of_a_folder_are_found_and_ended_even_if_they_do_not_listen(folder: FederationFolder) -> None:
    with _start(folder, SLEEP) as one, _start(folder, STUBBORN) as two, subprocess.Popen(SLEEP) as other:
        assert {process.pid for process in left_over(folder)} == {one.pid, two.pid}
        end(left_over(folder), grace=1.0)
        assert one.poll() is not None and two.poll() is not None and other.poll() is None
        other.kill()


def test_a_number_that_another_process_has_now_is_not_taken_for_the_federation(folder: FederationFolder) -> None:
    assert running(folder) is None
    state = Running.this(port=1, inner_port=2, address="127.0.0.1:1")
    set_running(folder, state)
    assert running(folder) == state
    own = psutil.Process().create_time()
    set_running(folder, Running(pid=os.getpid(), started=own - 5, port=1, inner_port=2, address="127.0.0.1:1"))
    assert running(folder) is None
    assert end_federation(folder) == 0 and not folder.running_file.exists()


def test_down_ends_the_process_that_is_named_and_what_it_started(folder: FederationFolder) -> None:
    with _start(folder, SLEEP) as main:
        started = psutil.Process(main.pid).create_time()
        set_running(folder, Running(pid=main.pid, started=started, port=1, inner_port=2, address="127.0.0.1:1"))
        assert end_federation(folder) == 1
        assert main.poll() is not None
