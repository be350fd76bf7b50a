"""A run on a federation from the outside: submitted, followed by the files of its folder, stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_profiles.errors import ExecutionError
from device_profiles.files import read_json
from server.federation.submit import stop_run, submit_run, wait_run
from server.fleet.reading import read_fleet
from server.rounds.stopping import Stopped
from server.rounds.summary import Summary

PROGRESS_NAME = "progress.log"
"""In the run's folder: what the run says, line by line."""
_FAILED = "ServerApp failed with exception: "


def run_on_federation(
    federation: Path, fleet: Path, output: Path, *, resume: bool, min_clients: int | None, note: Callable[[str], None]
) -> Summary:
    """Submit the run of a fleet file and follow it to its end; where this process is stopped, so is the run.

    Raises FormatError for the fleet file, UsageError where the federation is not up, ExecutionError with what the
    server app said where it failed.
    """
    read_fleet(fleet, joining=True)
    log = _Log(output / PROGRESS_NAME)
    number = submit_run(federation, fleet, output, resume=resume, min_clients=min_clients)
    try:
        ended = wait_run(federation, number, tick=lambda: log.tell(note))
    except Stopped:
        stop_run(federation, number)
        raise
    finally:
        log.tell(note)
    if not ended.succeeded:
        said = ended.details.removeprefix(_FAILED) or f"the run ended with the status '{ended.status}'"
        raise ExecutionError(said)
    return read_json(output / "summary.json", Summary)


class _Log:
    """What a run says from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path.stat().st_size if path.exists() else 0

    def tell(self, note: Callable[[str], None]) -> None:
        """Say the lines that are new; the last one only when it is whole."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            note(line)
