"""What Flower's server app does: the run of a fleet file, kept in a folder of this machine and resumed from there."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from device_profiles.errors import UsageError
from server.engines.flower.post import Grid
from server.engines.flower.setup import Federation, prepare_flower
from server.engines.flower.signing import OrderKey
from server.federation.home.devices import node_names
from server.federation.home.folder import FederationFolder
from server.federation.home.keys import order_key_file
from server.fleet.reading import read_fleet
from server.running.progress import TerminalProgress
from server.running.run_fleet import run_fleet
from server.serving.remote import PROGRESS_NAME

if TYPE_CHECKING:
    from server.rounds.summary import Summary


def serve(grid: Grid, config: Mapping[str, object], flower_run: int) -> Summary:
    """Run what the run config names, to its end. `flower_run` is Flower's number of this start.

    Raises UsageError for a config that names nothing, and whatever `run_fleet` raises.
    """
    fleet_path, output = _path(config, "fleet"), _path(config, "run")
    if config.get("folder"):  # where the command was given: data of the fleet file may be named from there
        os.chdir(_path(config, "folder"))
    fleet = read_fleet(fleet_path, joining=True)
    least = config.get("min-clients")
    if isinstance(least, int) and least > 0:
        fleet = fleet.with_min_clients(least)
    home = config.get("federation")
    folder = Path(str(home)) if home else None
    federation = Federation(
        grid=grid,
        # Devices count the attempts of a run; a start that follows a killed one counts anew.
        run=f"{output.name}-{flower_run}",
        flower_run=flower_run,
        key=None if folder is None else OrderKey.load(order_key_file(FederationFolder.at(folder))),
        named=lambda node: None if folder is None else node_names(folder).get(node),
    )
    progress = TerminalProgress(_Log(output / PROGRESS_NAME, sys.stderr))
    return run_fleet(
        fleet,
        output,
        resume=bool(config.get("resume")),
        observer=progress,
        note=progress.note,
        engine="flower",
        prepare=partial(prepare_flower, federation=federation),
    )


def _path(config: Mapping[str, object], key: str) -> Path:
    path = Path(str(config.get(key) or ""))
    if not path.is_absolute():
        raise UsageError(
            f"run config: {key} '{path}': must be an absolute path on the machine of the SuperLink",
            remedy='--run-config \'fleet="/path/fleet.toml" run="/path/run"\'',
        )
    return path


class _Log:
    """Lines for whoever follows the run's folder, and for Flower's own log. A folder that is not there yet is made by
    the run itself, when it has checked that it may."""

    def __init__(self, path: Path, beside: TextIO) -> None:
        self._path = path
        self._beside = beside

    def write(self, text: str) -> int:
        if self._path.parent.is_dir():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        return self._beside.write(text)

    def flush(self) -> None:
        self._beside.flush()

    def isatty(self) -> bool:
        return False
