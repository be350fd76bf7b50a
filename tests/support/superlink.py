"""A real SuperLink on this machine's loopback, with TLS and authentication of nodes, and an app that a test directs."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.flower_project import flower_project

_APP = Path(__file__).parent / "fleet_app"
_PROJECT = flower_project(
    "fleetapp", server="fleet_app.server_app:app", client="fleet_app.client_app:app", config={"folder": ""}
)
_ROOT = Path(__file__).resolve().parents[2]
_FEW_THREADS = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.support.superlink_app import main; main()"
_START_SECONDS = 90.0
OFFLINE = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


_PROGRAMS = {
    "flwr": ("flwr.cli.app", "app"),
    "flower-superlink": ("flwr.superlink.cli", "flower_superlink"),
    "flower-supernode": ("flwr.supernode.cli", "flower_supernode"),
    "flower-superexec": ("flwr.supercore.cli", "flower_superexec"),
    "flwr-serverapp": ("flwr.superlink.cli", "flwr_serverapp"),
    "flwr-clientapp": ("flwr.supernode.cli", "flwr_clientapp"),
}


def flower_programs(folder: Path) -> Path:
    """Commands of Flower, which starts its processes by name: those of this interpreter, which imports this tree."""
    folder.mkdir()
    for name, (module, function) in _PROGRAMS.items():
        lines = (f"#!{sys.executable}", "import sys", f"from {module} import {function}", f"sys.exit({function}())", "")
        (folder / name).write_text("\n".join(lines))
        (folder / name).chmod(0o755)
    return folder


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def write_certificates(folder: Path, *, days: int = 10) -> None:
    """`ca.crt`, `server.pem` and `server.key`, for localhost and 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's authority")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject: x509.Name, owner: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        start = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(owner.public_key())
        start = start.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=20))
        return start.not_valid_after(now + datetime.timedelta(days=days))

    own = certificate(name, authority).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    host = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    server = certificate(host, key).add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(own.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(server.sign(authority, hashes.SHA256()).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(secret)


class SuperLink:
    """`flower-superlink` with its state in a folder; killed, it can be started again with the same state.

    `programs`: where it finds commands first, by default beside this interpreter. `threads`: those that answer
    requests, where they are not to be Flower's own number.
    """

    def __init__(self, folder: Path, *, programs: Path | None = None, threads: int | None = None) -> None:
        self.folder = folder
        self._programs = programs or Path(sys.executable).parent
        self.port = free_port()
        self.ca = folder / "ca.crt"
        write_certificates(folder)
        self._threads = threads
        self._runs = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """`localhost:PORT`."""
        return f"localhost:{self.port}"

    @property
    def pid(self) -> int:
        """Of the SuperLink's own process."""
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """Of its process, and of whoever uses Flower's commands for it."""
        path = f"{self._programs}{os.pathsep}{os.environ.get('PATH', '')}"
        home = self.folder / "flwr"
        return {**os.environ, **OFFLINE, "FLWR_HOME": str(home), "PATH": path, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}

    def start(self) -> None:
        """Returns when it answers."""
        folder = self.folder
        options = ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"]
        options += ["--enable-supernode-auth", "--database", "state.db", "--disable-runtime-dependency-installation"]
        start = [_program("flower-superlink", self.environment["PATH"])]
        if self._threads is not None:
            start = [sys.executable, "-c", _FEW_THREADS, str(_ROOT), str(self._threads)]
        command = [*start, *options, "--host", "127.0.0.1", "--port", str(self.port)]
        with (folder / "superlink.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def log(self) -> str:
        """The end of what it said."""
        return (self.folder / "superlink.log").read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """SIGKILL; its server apps end when they notice that it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it and every stock SuperNode."""
        for process in self._nodes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._nodes.clear()
        self.kill()

    @contextlib.contextmanager
    def control(self) -> Iterator[Any]:
        """flwr's own client of its Control API."""
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

        interceptors = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        with ControlHttpClient.from_server_address(self.address, False, str(self.ca), interceptors) as client:
            yield client

    def register(self, public_pem: bytes) -> int:
        """Add a device; the number of its node."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        with self.control() as client:
            return int(client.RegisterNode(RegisterNodeRequest(public_key=public_pem)).node_id)

    def unregister(self, node: int) -> None:
        """Revoke the key of a device."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        with self.control() as client:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def start_node(self, key: Path) -> int:
        """A stock SuperNode, whose private key is written to `key`; its number."""
        secret = ec.generate_private_key(ec.SECP384R1())
        form = serialization.PrivateFormat.OpenSSH  # the only one that a SuperNode reads
        key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        node = self.register(secret.public_key().public_bytes(serialization.Encoding.PEM, public))
        command, _ = supernode_command(self.ca, self.address, key)
        with (self.folder / "supernodes.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self._nodes.append(process)
        return node

    def run(self) -> Rounds:
        """Start the app of `fleet_app`."""
        from flwr.cli.build import build_fab_from_disk
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        project = self.folder / "app"
        if not project.exists():
            project.mkdir()
            (project / "pyproject.toml").write_text(_PROJECT)
            (project / "LICENSE").write_text("Apache-2.0\n")
            shutil.copytree(_APP, project / "fleet_app", ignore=shutil.ignore_patterns("__pycache__"))
        folder = self.folder / f"rounds-{self._runs}"
        folder.mkdir()
        self._runs += 1
        data = build_fab_from_disk(project)
        fab = fab_to_proto(Fab(hashlib.sha256(data).hexdigest(), data, {}))
        config = user_config_to_proto({"folder": str(folder)})
        with self.control() as client:
            client.StartRun(StartRunRequest(fab=fab, override_config=config))
        return Rounds(folder)


class Rounds:
    """The folder of a running server app."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = 0

    def ask(
        self,
        nodes: list[int],
        document: str = "{}",
        files: Mapping[str, Path] | None = None,
        *,
        kind: str = "train.task",
        timeout: float = 60.0,
        signature: str = "",
    ) -> int:
        """Have a message sent to each of these nodes; the number of the round."""
        number = self.asked
        self.asked += 1
        paths = {name: str(path) for name, path in (files or {}).items()}
        asked = {"nodes": nodes, "type": kind, "document": document, "files": paths, "timeout": timeout}
        temporary = self.folder / "ask.tmp"
        temporary.write_text(json.dumps({**asked, "signature": signature}))
        temporary.rename(self.folder / f"ask-{number}.json")
        return number

    def done(self, number: int, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the end of a round."""
        return self._wait(self.folder / f"done-{number}.json", seconds)

    def answer(self, number: int, node: int, seconds: float = 60.0) -> dict[str, Any]:
        """The document of a node's reply."""
        return self._wait(self.folder / f"answer-{number}-{node}.json", seconds)

    def file(self, number: int, node: int, name: str) -> Path:
        """A file of a node's reply."""
        return self.folder / f"answer-{number}-{node}-{name}"

    def end(self) -> None:
        """Have the server app end."""
        (self.folder / "end").touch()

    def _wait(self, path: Path, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < deadline, f"{path.name} did not come"
            time.sleep(0.05)
        return dict(json.loads(path.read_text()))


def supernode_command(ca: Path, address: str, key: Path) -> tuple[list[str], dict[str, str]]:
    """Command of a stock SuperNode with this private key, and an environment in which it finds its own commands."""
    program = _program("flower-supernode")
    command = [program, "--root-certificates", str(ca), "--superlink", address]
    command += ["--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", str(free_port())]
    path = f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return command, {**os.environ, **OFFLINE, "PATH": path, "OMP_NUM_THREADS": "1"}


def _program(name: str, path: str | None = None) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if path is None and beside.exists() else shutil.which(name, path=path)
    assert found is not None, f"{name} is not installed"
    return found
