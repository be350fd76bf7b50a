"""Processes of a federation: which one runs it, and all that it has started, whoever still knows of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
import psutil

from device_profiles.contract import FORMAT_VERSION
from device_profiles.files import read_json, to_json
from server.federation.home.folder import FederationFolder, write_private

MARK = "PROFL_FEDERATION"
"""Environment variable with the folder, which every process of a federation inherits."""
_GRACE_SECONDS = 30.0
_SAME_SECONDS = 0.02
_POLL_SECONDS = 0.1


class Running(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process that runs a federation.

    Attributes:
        pid, started: number and start of the process, in seconds of the epoch: together they name one process.
        port, inner_port: of devices, and of the server's own processes on the loopback interface.
        address: what devices dial.
    """

    TITLE = "description of a running federation"

    pid: Annotated[int, msgspec.Meta(ge=1)]
    started: float
    port: int
    inner_port: int
    address: str
    format_version: int = FORMAT_VERSION

    @classmethod
    def this(cls, *, port: int, inner_port: int, address: str) -> Running:
        """That of this process."""
        own = psutil.Process()
        return cls(pid=own.pid, started=own.create_time(), port=port, inner_port=inner_port, address=address)

    def process(self) -> psutil.Process | None:
        """The process, if it is still the one that wrote this."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < _SAME_SECONDS and found.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return found if same else None


def running(folder: FederationFolder) -> Running | None:
    """Who runs the federation now; None where nobody does. Raises FormatError naming the file."""
    path = folder.running_file
    try:
        found = read_json(path, Running) if path.exists() else None
    except FileNotFoundError:
        return None
    return found if found is not None and found.process() is not None else None


def set_running(folder: FederationFolder, state: Running) -> None:
    """Say who runs the federation."""
    write_private(folder.running_file, to_json(state))


def environment(folder: FederationFolder) -> dict[str, str]:
    """Of all processes of a federation: Flower asks nobody outside, and leaves the user's own folder alone."""
    return {
        **os.environ,
        MARK: str(folder.path),
        "FLWR_HOME": str(folder.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def left_over(folder: FederationFolder) -> list[psutil.Process]:
    """Processes of the federation, without this one and those that it runs in."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in _marked(str(folder.path)) if process.pid not in own]


def _marked(folder: str) -> Iterator[psutil.Process]:
    user = os.getuid()
    for process in psutil.process_iter():
        try:
            if process.uids().real == user and process.environ().get(MARK) == folder:
                yield process
        except psutil.Error:
            continue  # it ended, or is none of ours to look into


def end(processes: list[psutil.Process], *, grace: float = _GRACE_SECONDS) -> None:
    """End processes, and wait until they are gone: with SIGTERM, and after `grace` seconds with SIGKILL."""
    for process in processes:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(processes, grace)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, grace)


def end_federation(folder: FederationFolder) -> int:
    """End the process that runs a federation and all that is left of it; how many processes there were."""
    found = running(folder)
    main = found.process() if found is not None else None
    ended = 0
    if main is not None:
        ended = 1 + len(main.children(recursive=True))
        end([main])
    deadline = time.monotonic() + _GRACE_SECONDS
    while (rest := left_over(folder)) and time.monotonic() < deadline:
        ended += len(rest) if main is None else 0
        end(rest)
        time.sleep(_POLL_SECONDS)
    folder.running_file.unlink(missing_ok=True)
    return ended


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.Error:
        return  # it ended before
