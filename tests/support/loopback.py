"""A whole federation of this machine: its folder, `up`, and devices that know nothing but an address."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
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
from server.engines.bundled.bundles import run_bundle
from server.federation.admission import admit
from server.federation.home.folder import FederationFolder
from server.fleet.fleet import DataSettings
from server.fleet.reading import read_fleet
from tests.support.begun_runs import begin
from tests.support.superlink import OFFLINE, flower_programs, free_port

ASK_WITHIN = 0.5
LIMITS = {"small": 96, "medium": 112, "large": 128}
STOCK, SERVER = "stock", "server"
_PROFILE = Path(__file__).resolve().parents[1] / "golden" / "profile.json"


class Loopback:
    """A federation's folder, and the processes of its devices.

    Args:
        fleet: the text of its fleet file.
        limits: of the light clients in MB, by their names.
        inside: what stands before the commands of the server and of each device, such as `ip netns exec`.
        measured: devices have been measured, and runs have their bundle, before they begin: where that is not tested.
    """

    def __init__(
        self,
        folder: Path,
        fleet: str,
        limits: Mapping[str, int] = LIMITS,
        *,
        stock: bool = False,
        inside: Mapping[str, Sequence[str]] | None = None,
        measured: bool = False,
    ) -> None:
        self.folder = folder
        self.home = folder / "federation"
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text(fleet)
        self.limits = limits
        self.names = [*limits, *([STOCK] if stock else [])]
        self._inside = inside or {}
        self._measured = measured
        self._words: dict[str, str] = {}
        programs = flower_programs(folder / "bin")
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
            if self._measured:
                state = self.folder / "state" / "profl-edge" / name
                state.mkdir(parents=True, mode=0o700)
                shutil.copyfile(_PROFILE, state / "profile.json")
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
            *("--ask-within", str(ASK_WITHIN)),  # a busy machine, which runs everything, is not to be spared
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
        self._run_stock()

    def _run_stock(self) -> None:
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
            *("--superlink", f"localhost:{port}", "--auth-supernode-private-key", str(self.folder / "stock.key")),
            *("--node-config", " ".join(f"{key}='{value}'" for key, value in config.items())),
            *("--host", "127.0.0.1", "--port", str(free_port())),
        )

    def run(self, output: str, *more: str) -> list[str]:
        return [
            *("run", "--engine", "flower", "--federation", str(self.home), "--fleet", str(self.fleet)),
            *("-o", str(self.folder / output), *more),
        ]

    def begin(self, output: str, *more: str, bundle: Path | None = None) -> subprocess.Popen[str]:
        """Start a run, which has the `bundle` of another one already where that is given."""
        if self._measured or bundle is not None:
            self._give_bundle(self.folder / output, bundle)
        command = self._server(*self.run(output, *more))
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, stderr=subprocess.PIPE)

    def _give_bundle(self, output: Path, bundle: Path | None) -> None:
        """What a start of the run leaves that was killed before its first round."""
        if output.exists():
            return
        if bundle is None:
            bundle = run_bundle(read_fleet(self.fleet, joining=True), self.folder / "bundle").path
        begin(output, self.fleet, bundle=bundle, engine="flower")

    def wait(self, running: subprocess.Popen[str], until: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not until():
            assert time.monotonic() < end and running.poll() is None, self.logs()
            time.sleep(0.2)

    def finish(self, running: subprocess.Popen[str]) -> str:
        """Wait until a run ends; what it said.

        The stock SuperNode is started again where it has ended: it gives up where a TLS handshake takes too long, as on
        a busy machine, and whoever has one lets a service manager do this.
        """
        end = time.monotonic() + 300
        while True:
            if STOCK in self.names and self.processes[STOCK].poll() is not None:
                self._run_stock()
            try:
                return running.communicate(timeout=2)[1]
            except subprocess.TimeoutExpired:
                assert time.monotonic() < end, self.logs()

    def rounds(self, output: str) -> list[dict[str, Any]]:
        """The finished rounds of a run."""
        path = self.folder / output / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kill(self, what: str) -> bool:
        """Kill the process of the federation in whose command line `what` is a part; False where there is none."""
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):  # it may just be giving up
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
