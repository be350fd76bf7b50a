"""Facts about the device, read and never guessed: what cannot be read is None."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from device_profiles.contract import LimitKind
from device_profiles.profile import Device
from edge_runtime.device.limits.control_groups import cpu_quota
from edge_runtime.device.machine.battery import battery_percent, charging
from edge_runtime.device.machine.readings import cpu_model, data_limit, huge_pages, memory_information
from profiler.facts.gpus import find_gpus


def describe_device(name: str, *, limit_bytes: int | None, limit_kind: LimitKind, root: Path = Path("/")) -> Device:
    """The device this runs on, as seen below `root` (`/`; another one in tests)."""
    memory = memory_information(root)
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    gpus = find_gpus(root)
    return Device(
        name=name,
        architecture=platform.machine(),
        kernel=platform.release(),
        cpu_model=cpu_model(root),
        cpu_count=_cpu_count(),
        memory_total_bytes=total,
        memory_available_bytes=available if available is None or total is None else min(available, total),
        limit_bytes=limit_bytes,
        limit_kind=limit_kind,
        accelerator=gpus[0].name if gpus else None,
        accelerator_memory_bytes=gpus[0].memory_total_bytes if gpus else None,
        battery_percent=battery_percent(root),
        battery_charging=charging(root),
        cpu_quota=cpu_quota(root),
        swap_total_bytes=memory.get("SwapTotal"),
        rlimit_bytes=data_limit(),
        huge_pages=huge_pages(root),
        huge_page_bytes=memory.get("Hugepagesize"),
        gpus=gpus,
    )


def describe_software(instruction_set: str | None) -> dict[str, str]:
    """Versions that decide what the numbers mean."""
    software = {"python": platform.python_version()}
    for package in ("profl-edge", "numpy"):
        try:
            software[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if instruction_set is not None:
        software["instruction_set"] = instruction_set
    return software


def _cpu_count() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count()
