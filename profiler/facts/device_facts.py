"""Facts about the device, read and never guessed: what cannot be read is None."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from device_profiles.contract import LimitKind
from device_profiles.profile import Device
from edge_runtime.device.limits.control_groups import cpu_quota, read_text
from profiler.facts.battery import battery_percent, charging
from profiler.facts.gpus import find_gpus


def describe_device(name: str, *, limit_bytes: int | None, limit_kind: LimitKind, root: Path = Path("/")) -> Device:
    """The device this runs on, as seen below `root` (`/`; another one in tests)."""
    memory = _key_values(root / "proc/meminfo")
    total, available = _kilobytes(memory.get("MemTotal")), _kilobytes(memory.get("MemAvailable"))
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
        swap_total_bytes=_kilobytes(memory.get("SwapTotal")),
        rlimit_bytes=_rlimit(),
        huge_pages=_chosen(read_text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        huge_page_bytes=_kilobytes(memory.get("Hugepagesize")),
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


def _key_values(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in read_text(path).splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _kilobytes(text: str | None) -> int | None:
    number = (text or "").split()[:1]
    return int(number[0]) * 1024 if number and number[0].isdigit() else None


def cpu_model(root: Path = Path("/")) -> str | None:
    """The processor's name, None where nothing says it.

    x86 says `model name`; ARM boards name themselves in `Model`, `Hardware` or the device tree.

    A virtual machine may say no more than the make ("AMD EPYC"), for processors that differ twofold in speed: family
    and model tell them apart.
    """
    values = _key_values(root / "proc/cpuinfo")
    tree = read_text(root / "proc/device-tree/model").strip("\0 \n")
    found = values.get("model name") or values.get("Model") or values.get("Hardware") or tree
    family, model = values.get("cpu family"), values.get("model")
    if found and family and model and not re.search(r"\d", found):
        found = f"{found} (family {family}, model {model})"
    return "".join(c for c in found if c.isprintable())[:200] or None


def _cpu_count() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count()


def _rlimit() -> int | None:
    import resource

    limits = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY and 0 <= soft < 1 << 53:
            limits.append(soft)
    return min(limits, default=None)


def _chosen(text: str) -> str | None:
    """The word in brackets: `always [madvise] never` is madvise."""
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else None
