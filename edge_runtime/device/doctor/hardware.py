"""What the machine is made of: processor, memory, swap, sensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from device_profiles.promise import PREPARING_BYTES
from device_profiles.sizes import MEGABYTE
from edge_runtime.device.doctor.row import Row
from edge_runtime.device.limits.control_groups import read_text
from edge_runtime.device.machine.battery import battery_percent, charging
from edge_runtime.device.machine.cores import BIG_SHARE, usable_cores
from edge_runtime.device.machine.readings import core_speeds, cpu_model, memory_information, temperatures

_SMALL_BYTES = 64 * MEGABYTE


def hardware_rows(root: Path) -> Iterator[Row]:
    """Rows of the machine as seen below `root`."""
    yield Row("processor", cpu_model(root) or "does not say its name")
    yield _threads(root)
    yield _memory(root)
    yield _swap(root)
    yield _temperature(root)
    yield _power(root)


def _threads(root: Path) -> Row:
    found = f"{usable_cores(root=root)} by default"
    speeds = core_speeds(root)
    fastest = max(speeds.values(), default=0.0)
    big = sum(speed >= BIG_SHARE * fastest for speed in speeds.values())
    if big < len(speeds):
        found += f"; {big} fast and {len(speeds) - big} slow cores"
    return Row("threads", found)


def _memory(root: Path) -> Row:
    memory = memory_information(root)
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    if total is None or available is None:
        return Row("memory", "the system does not tell how much there is", "note", "mount /proc")
    found = f"{available // MEGABYTE} of {total // MEGABYTE} MB available"
    if available < PREPARING_BYTES:
        needed = f"{PREPARING_BYTES // MEGABYTE} MB are needed before a training starts"
        return Row("memory", found, "missing", f"end other programs: {needed}", stops=True)
    if available < _SMALL_BYTES:
        return Row("memory", found, "note", "end other programs, or train the smaller blocks")
    return Row("memory", found)


def _swap(root: Path) -> Row:
    total = memory_information(root).get("SwapTotal", 0)
    if not total:
        return Row("swap", "none")
    devices = [line.split()[0] for line in read_text(root / "proc/swaps").splitlines()[1:] if line.strip()]
    compressed = bool(devices) and all("zram" in device for device in devices)
    if compressed:
        return Row("swap", f"{total // MEGABYTE} MB in zram, which takes memory itself")
    slow = "a training that needs it is slow and wears out a memory card: stay below the available memory"
    return Row("swap", f"{total // MEGABYTE} MB", "note", slow)


def _temperature(root: Path) -> Row:
    found = temperatures(root)
    if not found:
        return Row("temperature", "no sensor: profiles cannot say whether the machine was hot")
    sensors = "1 sensor" if len(found) == 1 else f"{len(found)} sensors"
    return Row("temperature", f"{sensors}, up to {max(found):.0f} degrees Celsius")


def _power(root: Path) -> Row:
    percent, state = battery_percent(root), charging(root)
    if percent is None and state is None:
        return Row("power", "no battery")
    level = "" if percent is None else f" at {percent:.0f} %"
    if state is False:
        return Row("power", f"on battery{level}", "note", "charge it: profl-edge join --when charging waits for that")
    return Row("power", f"battery{level}, charging" if state else f"battery{level}")
