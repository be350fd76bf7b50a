"""`federation.json` in the folder of a run: what every device is doing, as the engine last knew it.

The engine writes it, whole or not at all, whenever something changes; `profl-server federation status` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from device_profiles.contract import FORMAT_VERSION
from device_profiles.files import read_json, write_json

ACTIVITY_NAME = "federation.json"

State = Literal["idle", "asked", "profiling", "training", "busy", "gone"]
"""`asked`: a question is out that it has not answered; `busy`: it said that it takes no task now; `gone`: it left."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class DeviceActivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device.

    Attributes:
        name: what the server calls it.
        node_id: Flower's number of it.
        budget_bytes: what it said that it may use, None before it answered.
        task: the name of the work, such as `grow-units0-3`; "" where it has none.
        since: when the state began, in seconds of the epoch.
        last: what became of its last task: `ok`, or why there is no update; "" before the first.
    """

    name: str
    node_id: Count
    state: State
    since: float
    budget_bytes: Count | None = None
    task: str = ""
    last: str = ""


class Activity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All devices of a run, in the order of their names.

    Attributes:
        run: the run's own name, as in its orders.
        flower_run: Flower's number of it, None where the engine was not told.
        written_at: seconds of the epoch.
        stage, block, round: what is being trained; `round` is the one that is going on, counted from 1.
    """

    TITLE = "description of a federation's devices"

    run: str
    written_at: float
    devices: tuple[DeviceActivity, ...]
    flower_run: Count | None = None
    stage: str = ""
    block: Count = 0
    round: Count = 0
    format_version: int = FORMAT_VERSION


def write_activity(run_folder: Path, activity: Activity) -> None:
    """Put `activity` into the folder of its run, whole or not at all."""
    write_json(run_folder / ACTIVITY_NAME, activity)


def read_activity(run_folder: Path) -> Activity | None:
    """What the engine wrote last; None before it wrote anything. Raises FormatError naming the file."""
    path = run_folder / ACTIVITY_NAME
    return read_json(path, Activity) if path.exists() else None
