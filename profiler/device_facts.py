"""Facts about the device, read and never guessed: what cannot be read is None."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from device_profiles.contract import LimitKind
from device_profiles.profile import Device

_UNLIMITED_BYTES = 1 << 62


def describe_device(name: str, *, limit_bytes: int | None, limit_kind: LimitKind, root: Path = Path("/")) -> Device:
    """The device this runs on, as seen below `root` (`/`; another one in tests)."""
    memory = _key_values(root / "proc/meminfo")
    return Device(
        name=name,
        architecture=platform.machine(),
        kernel=platform.release(),
        cpu_model=_cpu_model(root / "proc/cpuinfo"),
        cpu_count=_cpu_count(),
        memory_total_bytes=_kilobytes(memory.get("MemTotal")),
        memory_available_bytes=_kilobytes(memory.get("MemAvailable")),
        limit_bytes=limit_bytes,
        limit_kind=limit_kind,
        battery_percent=_battery(root / "sys/class/power_supply"),
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


def inherited_limit(root: Path = Path("/")) -> tuple[int, LimitKind] | None:
    """The lowest memory limit of the control groups this process lives in, and their version; None without one."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(","):
            found = _lowest(root / "sys/fs/cgroup/memory", group, "memory.limit_in_bytes")
            return None if found is None else (found, "cgroup-v1")
        if controllers == "":
            found = _lowest(root / "sys/fs/cgroup", group, "memory.max")
            if found is not None:
                return found, "cgroup-v2"
    return None


def _lowest(mount: Path, group: str, name: str) -> int | None:
    """A group is held by the limits of its parents too. Version 1 writes no limit as a number near 2**63."""
    limits = []
    folder = mount / group.lstrip("/")
    for parent in (folder, *folder.parents):
        text = "".join(_lines(parent / name)[:1]).strip()
        if text.isdigit() and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
        if parent == mount:
            break
    return min(limits, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _key_values(path: Path) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in _lines(path))}


def _kilobytes(text: str | None) -> int | None:
    number = (text or "").split()[:1]
    return int(number[0]) * 1024 if number and number[0].isdigit() else None


def _cpu_model(path: Path) -> str | None:
    values = _key_values(path)
    return values.get("model name") or values.get("Model") or values.get("Hardware") or None


def _cpu_count() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count()


def _battery(folder: Path) -> float | None:
    try:
        for supply in sorted(folder.iterdir()):
            if (supply / "type").read_text().strip() == "Battery":
                return float((supply / "capacity").read_text())
    except (OSError, ValueError):
        return None
    return None
