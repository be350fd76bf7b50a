"""A federation on loopback from invitation to model: a SuperLink with TLS and authentication, three light clients under
hard limits and a stock SuperNode; what they train is what `--engine local` trains, bit by bit."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("flwr", reason="the federation runs on Flower")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from cryptography.hazmat.primitives import serialization
from safetensors.numpy import load_file

from server.data.split import write_parts
from server.fleet.fleet import DataSettings
from tests.support.superlink import OFFLINE, free_port

LIMITS = {"small": 96, "medium": 112, "large": 128}
STOCK = "stock"
FLEET = """
[model]
name = "cnn"
width = 8
batch = 32
partition = "0-1,2-2"

[data]
sources = ["digits"]
test_examples = 100

[method]
freezing = "equal"

[training]
steps = 2
learning_rate = 0.05
rounds = 2
min_clients = 4
join_seconds = 0
"""
_PROGRAMS = {
    "flower-supernode": ("flwr.supernode.cli", "flower_supernode"),
    "flower-superexec": ("flwr.supercore.cli", "flower_superexec"),
    "flwr-clientapp": ("flwr.supernode.cli", "flwr_clientapp"),
}


class Federation:
    """Its folder, and the processes of its devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "federation"
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text(FLEET)
        programs = folder / "bin"
        programs.mkdir()
        for name, (module, function) in _PROGRAMS.items():
            # Flower starts its processes by name: those of this interpreter, which imports this tree.
            (programs / name).write_text(
                f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            )
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            **OFFLINE,
            "OMP_NUM_THREADS": "1",
            "XDG_STATE_HOME": str(folder / "state"),
            "FLWR_HOME": str(folder / "flwr"),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        names = [*LIMITS, STOCK]
        self.parts = write_parts("digits", folder / "parts", names, DataSettings(sources=("digits",)))

    def server(self, *arguments: str, seconds: float = 400.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=seconds
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def up(self) -> None:
        self.server("federation", "up", str(self.home), "--port", "0", "--detach")
        for name, limit in LIMITS.items():
            said = self.server("federation", "add-device", name, "--federation", str(self.home), "--json")
            word = re.search(r"--invite ([\w-]+)", said.stdout)
            assert word is not None, said.stdout
            self.start(
                name,
                *(sys.executable, "-m", "edge_runtime.device", "join", "--invite", word[1]),
                *("--data", f"npz:{self.parts[name]}", "--memory-limit", f"{limit}MB"),
            )
        key = self.folder / "stock.key"
        self.server("federation", "add-device", STOCK, "--federation", str(self.home), "--keep-key", str(key))
        orders = serialization.load_pem_private_key((self.home / "keys" / "orders.key").read_bytes(), None)
        (self.folder / "server.pem").write_bytes(
            orders.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        config = {
            "data": f"npz:{self.parts[STOCK]}",
            "memory-limit": "128MB",
            "state-dir": str(self.folder / "stock-state"),
            "server-key": str(self.folder / "server.pem"),
        }
        port = json.loads((self.home / "running.json").read_text())["port"]
        self.start(
            STOCK,
            *("flower-supernode", "--root-certificates", str(self.home / "keys" / "ca.pem")),
            *("--superlink", f"localhost:{port}", "--auth-supernode-private-key", str(key)),
            *("--node-config", " ".join(f"{key}='{value}'" for key, value in config.items())),
            *("--host", "127.0.0.1", "--port", str(free_port())),
        )

    def run(self, output: str, *more: str) -> list[str]:
        return [
            *("run", "--engine", "flower", "--federation", str(self.home), "--fleet", str(self.fleet)),
            *("-o", str(self.folder / output), *more),
        ]

    def begin(self, output: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "server", *self.run(output, *more)]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, stderr=subprocess.PIPE)

    def wait(self, running: subprocess.Popen[str], until: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not until():
            assert time.monotonic() < end and running.poll() is None, self.logs()
            time.sleep(0.2)

    def kill(self, what: str) -> None:
        """Kill the one process of the federation in whose command line `what` is a part."""
        up = psutil.Process(json.loads((self.home / "running.json").read_text())["pid"])
        (found,) = [p for p in up.children(recursive=True) if any(what in word for word in p.cmdline())]
        found.kill()

    def logs(self) -> str:
        ends = [*self.folder.glob("*.log"), *(self.home / "logs").glob("*.log")]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in ends)

    def down(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.server("federation", "down", str(self.home))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    made = Federation(tmp_path_factory.mktemp("federation"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def trained(federation: Federation) -> Path:
    federation.server(*federation.run("run"))
    return federation.folder / "run"


def _rounds(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]


def _same(first: Path, second: Path) -> bool:
    a, b = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def local(federation: Federation) -> Path:
    limits = {**LIMITS, STOCK: 128}
    clients = "".join(f'[[clients]]\nname = "{name}"\nlimit_mb = {limit}\n' for name, limit in limits.items())
    fleet = federation.folder / "local.toml"
    fleet.write_text(FLEET.replace("join_seconds = 0", "") + clients)
    output = federation.folder / "local"
    federation.server("run", "--fleet", str(fleet), "-o", str(output), "--no-whole-network")
    return output


def test_every_device_takes_part_in_every_round_within_its_promise(trained: Path) -> None:
    rounds = _rounds(trained)
    assert [record["block"] for record in rounds] == [1, 2]
    for record in rounds:
        assert {c["client"]: c["status"] for c in record["clients"]} == dict.fromkeys([*LIMITS, STOCK], "ok")
        for client in record["clients"]:
            assert 0 < client["measured_peak_bytes"] <= client["predicted_peak_bytes"]
            assert client["bytes_up"] > 0 and client["bytes_down"] > 0


def test_what_it_trains_is_what_the_engine_local_trains_bit_by_bit(trained: Path, local: Path) -> None:
    assert _same(trained, local)
    accuracies = [[record["accuracy"] for record in _rounds(output)] for output in (trained, local)]
    assert accuracies[0] == accuracies[1]


def test_whoever_watches_sees_what_the_devices_did(trained: Path) -> None:
    activity = json.loads((trained / "federation.json").read_text())
    assert {device["name"]: device["last"] for device in activity["devices"]} == dict.fromkeys([*LIMITS, STOCK], "ok")
    assert activity["round"] == 2 and activity["block"] == 2


def test_a_killed_server_app_and_a_killed_superlink_lose_no_finished_round(
    federation: Federation, trained: Path
) -> None:
    output = federation.folder / "killed"
    running = federation.begin("killed")
    federation.wait(running, lambda: (output / "rounds.jsonl").exists() and bool(_rounds(output)))
    federation.kill("flwr_serverapp")
    _, said = running.communicate(timeout=300)
    assert running.returncode == 1 and len(said.strip().splitlines()[-1]) < 300, said
    finished = _rounds(output)
    running = federation.begin("killed", "--resume")
    federation.wait(running, lambda: "resumed after" in (output / "progress.log").read_text())
    federation.kill("server.federation.flower.superlink")
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, f"{said}\n{federation.logs()}"
    rounds = _rounds(output)
    assert rounds[: len(finished)] == finished and [record["round"] for record in rounds] == [1, 2]
    assert _same(output, trained)
