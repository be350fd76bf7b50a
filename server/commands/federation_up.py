"""`profl-server federation up` as a process: in the foreground, or behind the terminal."""

from __future__ import annotations

import subprocess
import sys
import time

import click
import msgspec

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.files import atomic_file
from server.federation.home.addresses import is_loopback
from server.federation.home.devices import read_devices
from server.federation.home.folder import FederationFolder, Settings
from server.federation.home.logs import last_line, open_log
from server.federation.processes import Running, environment, running
from server.federation.status import StatusReader
from server.federation.status_page import REFRESH_SECONDS, status_page
from server.federation.up import run_federation
from server.rounds.stopping import Stopped, stop_signals

_START_SECONDS = 150.0
_POLL_SECONDS = 0.2


class Terminal:
    """Says what happens, and keeps the page up to date."""

    def __init__(self, folder: FederationFolder, settings: Settings, *, as_json: bool) -> None:
        self._as_json = as_json
        self._folder = folder
        self._settings = settings
        self._reader = StatusReader(folder)
        self._written = 0.0

    def ready(self, running: Running) -> None:
        """What to do next."""
        if self._as_json:
            click.echo(msgspec.json.encode(running).decode())
        else:
            say_next(self._folder, self._settings, running)

    def note(self, line: str) -> None:
        """A line on standard error."""
        click.echo(line, err=True)

    def tick(self, running: Running) -> None:
        """Write the page again, every few seconds."""
        if time.monotonic() - self._written < REFRESH_SECONDS:
            return
        self._written = time.monotonic()
        try:
            with atomic_file(self._folder.page) as temporary:
                temporary.write_text(status_page(self._reader.read()), encoding="utf-8")
        except (ProflError, OSError) as error:  # a full disk, or a file that somebody edits: training goes on
            self.note(f"the page is not up to date: {error}")


def next_steps(folder: FederationFolder, settings: Settings, running: Running) -> list[str]:
    """What a person can do with a federation that is up, as lines to paste."""
    place = folder.path
    devices = len(read_devices(folder).devices)
    lines = [f"the federation is up at {running.address} with {devices} devices; Ctrl-C or this line ends it:"]
    lines += [f"  profl-server federation down {place}", "let a device in:"]
    lines += [f"  profl-server federation add-device NAME --federation {place} --data DATA --memory-limit 128MB"]
    lines += ["train:", f"  profl-server run --engine flower --federation {place} --fleet FLEET -o RUN"]
    lines += ["watch:", f"  profl-server federation status {place} --watch", f"  a browser at {folder.page.as_uri()}"]
    if is_loopback(settings.hosts):
        lines.append("only this machine can reach it; for devices of a network: --host 0.0.0.0")
    return lines


def say_next(folder: FederationFolder, settings: Settings, running: Running) -> None:
    """Say so on standard error."""
    for line in next_steps(folder, settings, running):
        click.echo(line, err=True)


def run_here(folder: FederationFolder, settings: Settings, *, as_json: bool) -> int:
    """Run it until a signal comes; 0, because that is how it ends."""
    terminal = Terminal(folder, settings, as_json=as_json)
    try:
        with stop_signals():
            run_federation(folder, settings, terminal)
    except Stopped as stopped:
        terminal.note(f"the federation is down: {stopped.name}")
    return 0


def run_detached(folder: FederationFolder, settings: Settings) -> Running:
    """Start it behind the terminal and wait until it answers. Raises ExecutionError with what it said last."""
    folder.make()
    log = folder.logs / "up.log"
    command = [sys.executable, "-m", "server", "federation", "up", str(folder.path), "--port", str(settings.port)]
    command += [word for host in settings.hosts for word in ("--host", host)]
    with open_log(log) as out:
        start = out.tell()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(folder),
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while True:
        found = running(folder)
        if found is not None and found.pid == child.pid:
            return found
        if child.poll() is not None or time.monotonic() > deadline:
            said = last_line(log) if log.stat().st_size > start else "it said nothing"
            raise ExecutionError(said.removeprefix("profl-server: error: "))
        time.sleep(_POLL_SECONDS)
