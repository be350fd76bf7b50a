"""`run.json`: the run that a federation was given last."""

from __future__ import annotations

from typing import Annotated

import msgspec

from device_profiles.contract import FORMAT_VERSION
from device_profiles.files import read_json, to_json
from server.federation.home.folder import FederationFolder, write_private

_NAME = "run.json"


class CurrentRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the run keeps its state, its fleet file, and Flower's number of it; times in seconds of the epoch."""

    TITLE = "description of a federation's run"

    folder: str
    fleet: str
    flower_run: Annotated[int, msgspec.Meta(ge=0)]
    started_at: float
    format_version: int = FORMAT_VERSION


def current_run(folder: FederationFolder) -> CurrentRun | None:
    """The run that was started last; None before the first. Raises FormatError naming the file."""
    path = folder.path / _NAME
    return read_json(path, CurrentRun) if path.exists() else None


def set_current_run(folder: FederationFolder, run: CurrentRun) -> None:
    """Remember what was started."""
    write_private(folder.path / _NAME, to_json(run))
