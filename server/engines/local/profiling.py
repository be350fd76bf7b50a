"""Profile every client of a run on this machine, each under its own limit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from device_profiles.errors import ExecutionError
from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile
from edge_runtime.device.prepare.bundle import Bundle
from server.fleet.fleet import Fleet
from server.rounds.stopping import run_child

Note = Callable[[str], None]


def profile_clients(
    fleet: Fleet, bundle: Bundle, folder: Path, note: Note, *, purposes: Sequence[str]
) -> dict[str, DeviceProfile]:
    """The profile of each client by name, of the programs of these `purposes`; kept in `folder`. Raises ExecutionError
    where one cannot be made."""
    profiles = {}
    for client in fleet.clients:
        path = folder / f"{client.name}.json"
        note(f"profiling {client.name} under {client.limit_mb:g} MB")
        command = [sys.executable, "-m", "profiler", str(bundle.path), "--limit", f"{client.limit_bytes}B"]
        command += ["--name", client.name, "-o", str(path), "--threads", str(fleet.training.threads)]
        command += ["--steps", "2", "--json"]
        command += ["--no-cached-prefix"] if fleet.training.cache_prefix == "none" else []
        command += [option for purpose in purposes for option in ("--purpose", purpose)]
        finished = run_child(command)
        if finished.returncode != 0:
            lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
            raise ExecutionError(f"profile of {client.name}: {lines[-1]}")
        profiles[client.name] = read_json(path, DeviceProfile)
    return profiles
