"""What the user asks about: a data set, and a memory limit."""

from __future__ import annotations

from pathlib import Path

from device_profiles.errors import ProflError
from device_profiles.promise import PREPARING_BYTES
from device_profiles.sizes import MEGABYTE
from edge_runtime.device.data.open import open_raw
from edge_runtime.device.doctor.row import Row
from edge_runtime.device.limits.control_groups import memory_limit
from edge_runtime.device.machine.readings import memory_information


def data_row(spec: str) -> Row:
    """Whether the examples to train on can be read."""
    try:
        data = open_raw(spec, split="train")
    except ProflError as error:
        return Row("data", str(error), "missing", stops=True)
    shape = data.shape if hasattr(data, "shape") else data.input_shape
    classes = f", {data.classes} classes" if data.classes else ""
    examples = len(data.labels) // (getattr(data, "targets", 0) or 1)
    return Row("data", f"{spec}: {examples} examples of {'x'.join(map(str, shape))}{classes}")


def limit_row(limit_bytes: int, root: Path) -> Row:
    """Whether a training can live under a limit of its own here."""
    found = f"{limit_bytes / MEGABYTE:g} MB"
    if limit_bytes < PREPARING_BYTES:
        remedy = f"give at least {PREPARING_BYTES // MEGABYTE} MB: reading bundle and data takes that"
        return Row("limit", found, "missing", remedy, stops=True)
    outside = memory_limit(root)
    if outside is not None and outside.size_bytes < limit_bytes:
        lower = f"{outside.size_bytes // MEGABYTE} MB"
        return Row("limit", found, "note", f"this process may take {lower} only ({outside.kind}): that holds")
    available = memory_information(root).get("MemAvailable")
    if available is not None and available < limit_bytes:
        return Row("limit", found, "note", f"only {available // MEGABYTE} MB are available now: end other programs")
    return Row("limit", found)
