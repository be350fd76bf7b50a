"""Runs on the federation's own SuperLink: started as `flwr run` would start them, followed, and stopped.

The server app runs on this machine as a process of the federation. Its run config has the keys of `CONFIG`, which the
app's `pyproject.toml` must have as well: `federation`, `fleet`, `run` and `folder`, which are absolute paths,
`resume`, a boolean, and `min-clients`, 0 for what the fleet file says. Relative paths in the fleet file are below
`folder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from device_profiles.errors import ExecutionError, FormatError, UsageError
from server.federation.flower.control import Control, FlowerRun, Scalar, control
from server.federation.home.current_run import CurrentRun, current_run, set_current_run
from server.federation.home.folder import FederationFolder
from server.federation.processes import running

APP = Path(__file__).resolve().parents[1] / "engines" / "flower" / "app"
"""Our app, as `flwr run` takes it."""
CONFIG: dict[str, Scalar] = {
    "fleet": "",
    "run": "",
    "federation": "",
    "folder": "",
    "resume": False,
    "min-clients": 0,
}
"""What an app must declare as its run config to be submitted here: Flower refuses keys that it does not know."""
_POLL_SECONDS = 1.0
_SILENT_SECONDS = 120.0
"""How long a SuperLink may be away while it is started again."""


def submit_run(
    folder: Path, fleet: Path, run: Path, *, resume: bool, min_clients: int | None = None, app: Path = APP
) -> int:
    """Start a run of `app` on the federation in `folder`; Flower's number of it. `min_clients` overrides the fleet
    file's.

    Raises UsageError where the federation is not up or another run goes on, ExecutionError where its SuperLink does not
    take the run.
    """
    place = FederationFolder.at(folder)
    config: dict[str, Scalar] = {
        "federation": str(place.path),
        "fleet": str(fleet.resolve()),
        "run": str(run.resolve()),
        "folder": str(Path.cwd()),
        "resume": resume,
        "min-clients": min_clients or 0,
    }
    with _control(place) as superlink:
        _check_free(place, superlink)
        number = superlink.start(_packed(app), config)
    set_current_run(
        place,
        CurrentRun(folder=str(config["run"]), fleet=str(config["fleet"]), flower_run=number, started_at=time.time()),
    )
    return number


def wait_run(folder: Path, number: int, *, tick: Callable[[], None] = lambda: None) -> FlowerRun:
    """Wait until a run ends, and say how; `tick` is called every second.

    A SuperLink that ends meanwhile is waited for while the federation starts it again. Raises ExecutionError where it
    does not come back.
    """
    place = FederationFolder.at(folder)
    heard = time.monotonic()
    while True:
        try:
            with _control(place) as superlink:
                while not (found := superlink.run(number)).is_finished:
                    heard = time.monotonic()
                    tick()
                    time.sleep(_POLL_SECONDS)
                return found
        except (ExecutionError, UsageError):
            if time.monotonic() - heard > _SILENT_SECONDS:
                raise
        tick()
        time.sleep(_POLL_SECONDS)


def stop_run(folder: Path, number: int) -> None:
    """Stop a run; nothing happens where it has ended. Raises as `submit_run` does."""
    with _control(FederationFolder.at(folder)) as superlink:
        superlink.stop(number)


def stop_runs(folder: Path) -> list[int]:
    """Stop every run that goes on; Flower's numbers of them. Raises as `submit_run` does."""
    with _control(FederationFolder.at(folder)) as superlink:
        going_on = [run.run_id for run in superlink.runs() if not run.is_finished]
        for number in going_on:
            superlink.stop(number)
    return going_on


def run_log(folder: Path, number: int) -> Iterator[str]:
    """What a run's server app says, until the run ends. Raises as `submit_run` does."""
    with _control(FederationFolder.at(folder)) as superlink:
        for said, _ in superlink.log(number):
            yield said


def _check_free(folder: FederationFolder, superlink: Control) -> None:
    going_on = [run.run_id for run in superlink.runs() if not run.is_finished]
    if going_on:
        last = current_run(folder)
        what = last.folder if last is not None and last.flower_run in going_on else f"Flower's run {going_on[0]}"
        raise UsageError(
            f"{folder.path}: trains already: {what}",
            remedy=f"wait for its end, or stop it: profl-server federation stop {folder.path}",
        )


@contextmanager
def _control(folder: FederationFolder) -> Iterator[Control]:
    folder.settings()
    state = running(folder)
    if state is None:
        raise UsageError(
            f"{folder.path}: the federation is not up", remedy=f"start it: profl-server federation up {folder.path}"
        )
    with control(folder, state.inner_port) as superlink:
        yield superlink


def _packed(app: Path) -> bytes:
    """The app as one file. Raises FormatError naming the folder where Flower does not take it."""
    try:
        return build_fab_from_disk(app)
    except (ValueError, OSError) as error:
        raise FormatError(f"{app}: is no app of Flower's: {' '.join(str(error).split())}") from None
