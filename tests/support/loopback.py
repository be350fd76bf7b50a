"""A whole federation of this machine: its folder, `up`, and devices that know nothing but an address."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization

from server.data.split import write_parts
from server.federation.admission import admit
from server.federation.home.folder import FederationFolder
from server.fleet.fleet import DataSettings
from tests.support.superlink import OFFLINE, free_port

LIMITS = {"small": 96, "medium": 112, "large": 128}
STOCK, SERVER = "stock", "server"
_PROGRAMS = {
    "flower-supernode": ("flwr.supernode.cli", "flower_supernode"),
    "flower-superexec": ("flwr.supercore.cli", "flower_superexec"),
    "flwr-clientapp": ("flwr.supernode.cli", "flwr_clientapp"),
}


class Loopback:
    """A federation's folder, and the processes of its devices.

    Args:
        fleet: the text of its fleet file.
        limits: of the light clients in MB, by their names.
        inside: what stands before the commands of the server and of each device, such as `ip netns exec`.
    """

    def __init__(
        self,
        folder: Path,
        fleet: str,
        limits: Mapping[str, int] = LIMITS,
        *,
        stock: bool = False,
        inside: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.folder = folder
        self.home = folder / "federation"
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text(fleet)
        self.limits = limits
        self.names = [*limits, *([STOCK] if stock else [])]
        self._inside = inside or {}
        self._words: dict[str, str] = {}
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
        self.parts = write_parts("digits", folder / "parts", self.names, DataSettings(sources=("digits",)))

    def _server(self, *arguments: str) -> list[str]:
        return [*self._inside.get(SERVER, ()), sys.executable, "-m", "server", *arguments]

    def server(self, *arguments: str, seconds: float = 400.0) -> subprocess.CompletedProcess[str]:
        command = self._server(*arguments)
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

    def up(self, *options: str) -> None:
        """Start the federation, and every device."""
        self.server("federation", "up", str(self.home), "--port", "0", "--detach", *options)
        for name in self.limits:
            self._words[name] = self._admit(name)
            self.join(name)
        if STOCK in self.names:
            self._start_stock()

    def _admit(self, name: str, keep_key: Path | None = None) -> str:
        """A device's invitation."""
        if not self._inside:
            folder = FederationFolder.at(self.home)
            return admit(folder, name, memory_limit_bytes=None, data=None, keep_key=keep_key).invitation
        said = self.server("federation", "add-device", name, "--federation", str(self.home), "--json")
        word = re.search(r"--invite ([\w-]+)", said.stdout)
        assert word is not None, said.stdout
        return word[1]

    def join(self, name: str, limit: int | None = None) -> None:
        """Start a light client, with another limit if one is given."""
        self.start(
            name,
            *self._inside.get(name, ()),
            *(sys.executable, "-m", "edge_runtime.device", "join", "--invite", self._words[name]),
            *("--data", f"npz:{self.parts[name]}", "--memory-limit", f"{limit or self.limits[name]}MB"),
        )

    def _start_stock(self) -> None:
        key = self.folder / "stock.key"
        self._admit(STOCK, key)
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
        command = self._server(*self.run(output, *more))
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, stderr=subprocess.PIPE)

    def wait(self, running: subprocess.Popen[str], until: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not until():
            assert time.monotonic() < end and running.poll() is None, self.logs()
            time.sleep(0.2)

    def rounds(self, output: str) -> list[dict[str, Any]]:
        """The finished rounds of a run."""
        path = self.folder / output / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kill(self, what: str) -> bool:
        """Kill the process of the federation in whose command line `what` is a part; False where there is none."""
        with contextlib.suppress(psutil.NoSuchProcess):
            up = psutil.Process(json.loads((self.home / "running.json").read_text())["pid"])
            for process in up.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if any(what in word for word in process.cmdline()):
                        process.kill()
                        return True
        return False

    def logs(self) -> str:
        ends = [*self.folder.glob("*.log"), *(self.home / "logs").glob("*.log")]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in ends)

    def down(self) -> None:
        """End devices and federation."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.server("federation", "down", str(self.home))
