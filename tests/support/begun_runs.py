"""Runs that begin where another one has done the same: with its bundle, and with what its devices have measured."""

from __future__ import annotations

import shutil
from pathlib import Path

from server.fleet.reading import read_fleet
from server.running.settings import settings_sha256


def begin(output: Path, fleet: Path, *, bundle: Path, profiles: Path | None = None, engine: str = "local") -> None:
    """Make `output` what a start of `fleet` leaves that was stopped before its first round.

    `bundle` and `profiles` are those of a run of the same model, method and clients.
    """
    shutil.copytree(bundle, output / "bundle")
    if profiles is not None:
        shutil.copytree(profiles, output / "profiles")
    settings = settings_sha256(read_fleet(fleet, joining=engine == "flower"), engine)
    (output / "settings.sha256").write_text(settings + "\n")
