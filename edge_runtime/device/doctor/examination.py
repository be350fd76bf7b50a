"""All rows, in the order in which they are shown."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.device.doctor.asked import data_row, limit_row
from edge_runtime.device.doctor.hardware import hardware_rows
from edge_runtime.device.doctor.row import Row
from edge_runtime.device.doctor.rules import rule_rows
from edge_runtime.device.doctor.software import software_rows
from edge_runtime.device.doctor.storage import storage_rows


def examine(root: Path = Path("/"), *, data: str | None = None, limit_bytes: int | None = None) -> list[Row]:
    """What this machine, as seen below `root`, offers; with a row for `data` and for a limit where they are given."""
    rows = [*software_rows(), *hardware_rows(root), *rule_rows(root), *storage_rows()]
    if limit_bytes is not None:
        rows.append(limit_row(limit_bytes, root))
    if data is not None:
        rows.append(data_row(data))
    return rows
