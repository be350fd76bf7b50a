"""A federation on this machine: a SuperLink, three light clients that know nothing but its address, and a run.

`python -m tools.federation_demo` does what a person with three boards does, with the same commands, in one folder:
federation up, add-device and join three times, run, down. What was interrupted goes on from the last round.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from device_profiles.errors import ExecutionError
from edge_runtime.ending import as_process, exit_status
from server.data.split import choose_source, write_parts
from server.federation.home.folder import FederationFolder
from server.fleet.reading import read_fleet
from server.rounds.stopping import Stopped, stop_signals

DEVICES = {"tablet": "128MB", "phone": "92MB", "camera": "72MB"}
"""Each with its hard limit, for the client and its training together."""
_END_SECONDS = 30.0
_FILE = click.Path(path_type=Path)
_FLEET = Path("examples/fleets/federation.toml")


@click.command(epilog="Example: python -m tools.federation_demo -o runs/federation-demo")
@click.option("--fleet", type=_FILE, default=_FLEET, show_default=True, help="Fleet file without clients.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("runs/federation-demo"), show_default=True
)
def main(fleet: Path, output: Path) -> None:
    """Train one network on three devices that only know the network."""
    home, run = output / "federation", output / "run"
    parts = _parts(fleet, output / "data")
    with stop_signals(), _federation(home), _devices(home, output / "devices", parts):
        click.echo(f"watch it: a browser at {(home / 'status.html').resolve().as_uri()}", err=True)
        arguments = ["run", "--engine", "flower", "--federation", str(home), "--fleet", str(fleet)]
        _server(*arguments, "-o", str(run), "--resume")


def _parts(fleet: Path, folder: Path) -> dict[str, Path]:
    """The data that each device has: a third of what the server has found, which it evaluates with itself."""
    data = read_fleet(fleet, joining=True).data
    source, _ = choose_source(data)
    folder.mkdir(parents=True, exist_ok=True)
    return write_parts(source, folder, list(DEVICES), data)


@contextmanager
def _federation(home: Path) -> Iterator[None]:
    # A free port the first time; later the same one, at which the devices look for it.
    first = [] if FederationFolder.at(home).exists else ["--port", "0"]
    _server("federation", "up", str(home), *first, "--detach")
    try:
        yield
    finally:
        _server("federation", "down", str(home))


@contextmanager
def _devices(home: Path, folder: Path, parts: dict[str, Path]) -> Iterator[None]:
    """A client for each device, in a process and a folder of its own; ended with a signal, as a device's owner does."""
    folder.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, limit in DEVICES.items():
            started.append(_join(home, folder / name, name, parts[name], limit))
        yield
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(_END_SECONDS)


def _join(home: Path, state: Path, name: str, part: Path, limit: str) -> subprocess.Popen[bytes]:
    """Let a device in, and start its client with the line that this printed; where it was in before, with its state."""
    command = [sys.executable, "-m", "edge_runtime.device", "join", "--state-dir", str(state)]
    if (state / "settings.json").exists():
        command.append(FederationFolder.at(home).settings().address)
    else:
        asked = [sys.executable, "-m", "server", "federation", "add-device", name, "--federation", str(home), "--json"]
        added = subprocess.run(asked, stdout=subprocess.PIPE, check=False)
        if added.returncode:
            raise ExecutionError(f"add-device {name}: exit status {added.returncode}")
        command += ["--invite", json.loads(added.stdout)["invitation"]]
        command += ["--data", f"npz:{part.resolve()}", "--memory-limit", limit]
    with state.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _server(*arguments: str) -> None:
    """Run a command of `profl-server`, whose words are for the terminal; raises ExecutionError where it fails."""
    ended = subprocess.run([sys.executable, "-m", "server", *arguments], check=False)
    if ended.returncode:
        raise ExecutionError(f"profl-server {' '.join(arguments[:2])}: exit status {ended.returncode}")


def _run() -> int:
    try:
        return exit_status("federation-demo", lambda: main.main(standalone_mode=False))
    except Stopped:
        return 130


if __name__ == "__main__":
    sys.exit(as_process("federation-demo", _run))
