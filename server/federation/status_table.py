"""The state of a federation as a table for a terminal. MB = 1,048,576 bytes."""

from __future__ import annotations

import time
from datetime import datetime

from server.federation.status import DeviceStatus, FederationStatus
from server.report.text import shown

_MB = 1 << 20
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def status_lines(status: FederationStatus) -> list[str]:
    """The federation, its run, and a line for each device; nothing in them moves a terminal's cursor."""
    return [shown(line) for line in [headline(status), *run_lines(status), "", *_devices(status)]]


def headline(status: FederationStatus) -> str:
    """Whether it is up, where, and how many devices are connected."""
    state = f"is up at {status.address}" if status.up else "is down"
    line = f"The federation {state}: {status.online} of {len(status.devices)} devices online"
    return f"{line} ({status.problem})" if status.problem else line


def run_lines(status: FederationStatus) -> list[str]:
    """How far the run is."""
    run = status.run
    if run is None:
        return ["no run was started"]
    place = f"{run.stage} {run.block}" if run.block else run.stage
    parts = [f"{run.rounds} rounds finished"]
    if run.finished:
        parts = [f"finished after {run.rounds} rounds"]
    elif status.round:
        parts.insert(0, f"round {status.round}")
    if place and not run.finished:
        parts.insert(0, place)
    if run.accuracy is not None:
        parts.append(f"accuracy {run.accuracy:.4f}")
    elif run.test_loss is not None:
        parts.append(f"test loss {run.test_loss:.4f}")
    if run.failed_rounds:
        times = "once" if run.failed_rounds == 1 else f"{run.failed_rounds} times"
        parts.append(f"stopped {times} because too few delivered")
    lines = [f"run {run.folder}: {', '.join(parts)}"]
    return [*lines, run.problem] if run.problem else lines


def cells(device: DeviceStatus, now: float) -> tuple[str, str, str, str, str]:
    """Name, connection, memory, what it does, and what became of its last task."""
    return device.name, _connection(device, now), memory(device), doing(device, now), device.last


def memory(device: DeviceStatus) -> str:
    """MB that it may use."""
    return "-" if device.budget_bytes is None else f"{device.budget_bytes // _MB} MB"


def doing(device: DeviceStatus, now: float) -> str:
    """What it does, and for how long; `-` where nobody knows."""
    what = f"{device.doing} {device.task}".strip() or "-"
    return what if device.since is None else f"{what}, {ago(now - device.since)}"


def _connection(device: DeviceStatus, now: float) -> str:
    if device.connection == "online" and device.connected_since is not None:
        return f"online for {ago(now - device.connected_since)}"
    if device.connection == "offline" and device.last_heard is not None:
        return f"offline for {ago(now - device.last_heard)}"
    return device.connection


def ago(seconds: float) -> str:
    """A time that has passed, in the unit that fits it."""
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def clock(seconds: float) -> str:
    """A time of the epoch as this machine's clocks show it."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _devices(status: FederationStatus) -> list[str]:
    now = time.time()
    rows = [("device", "connection", "memory", "doing", "last task")]
    rows += [cells(device, now) for device in status.devices]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if not status.devices:
        return ["no devices; add one with profl-server federation add-device NAME"]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
