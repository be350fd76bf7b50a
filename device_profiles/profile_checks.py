"""What a device profile must satisfy before anything of it is believed: profiles are input from strangers.

Every way of being wrong has a message of its own that names the field. The structs are passed as they are; this
module does not import them, so that they can call it from their own `check`.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

import msgspec

from device_profiles.errors import FormatError

_LARGEST_BYTES = 1 << 53
"""Numbers above it are not exact in JSON; no device has that much memory."""
_LONGEST_TEXT = 400
_MOST_COSTS = 10_000
_MOST_SAMPLES = 100_000
_SIGNED = {"unexplained_bytes"}
_PARTS = ("parameters_bytes", "gradients_bytes", "optimizer_state_bytes", "activations_bytes", "temporaries_bytes")
_POSITIVE = {"block", "batch", "micro_batch", "cpu_count", "threads", "repetitions", "steps", "blocks"}


def check_profile(profile: Any, where: str) -> None:
    """The document as a whole: digest, date, names; raises FormatError."""
    check_fields(profile, where)
    check_fields(profile.measurement, f"{where}: measurement")
    if not re.fullmatch(r"[0-9a-f]{64}", profile.bundle_sha256):
        raise FormatError(f"{where}: bundle_sha256 is not a SHA-256 in hexadecimal")
    try:
        datetime.fromisoformat(profile.measurement.measured_at)
    except ValueError:
        raise FormatError(f"{where}: measurement: measured_at is not an ISO 8601 date") from None
    for key, value in profile.software.items():
        _check_text("software", key, where)
        _check_text(f"software: {key}", value, where)
    if len(profile.costs) > _MOST_COSTS:
        raise FormatError(f"{where}: costs: has {len(profile.costs)} programs; at most {_MOST_COSTS} are allowed")
    seen: set[str] = set()
    for cost in profile.costs:
        if cost.program in seen:
            raise FormatError(f"{where}: costs: {cost.program} is listed twice")
        seen.add(cost.program)
        if profile.blocks is not None and cost.block > profile.blocks:
            raise FormatError(f"{where}: costs: {cost.program}: block {cost.block} of {profile.blocks} does not exist")


def check_device(device: Any, where: str) -> None:
    """Hardware facts that contradict each other; raises FormatError."""
    check_fields(device, where)
    for gpu in device.gpus:
        check_fields(gpu, f"{where}: gpus")
    total, available = device.memory_total_bytes, device.memory_available_bytes
    if total is not None and available is not None and available > total:
        raise FormatError(f"{where}: memory_available_bytes exceeds memory_total_bytes")
    if device.battery_percent is not None and not 0 <= device.battery_percent <= 100:
        raise FormatError(f"{where}: battery_percent is not between 0 and 100")
    if device.cpu_quota is not None and device.cpu_quota <= 0:
        raise FormatError(f"{where}: cpu_quota is not above zero")
    if device.limit_kind != "none" and device.limit_bytes is None:
        raise FormatError(f"{where}: limit_kind is {device.limit_kind}, but limit_bytes is missing")


def check_cost(cost: Any, where: str) -> None:
    """One program's numbers; raises FormatError."""
    check_fields(cost, where)
    whole = cost.base_bytes + cost.arena_bytes + cost.frozen_bytes + cost.workspace_bytes + cost.staging_bytes
    if whole != cost.predicted_peak_bytes:
        raise FormatError(
            f"{where}: predicted_peak_bytes is {cost.predicted_peak_bytes}, but its parts add up to {whole}"
        )
    inside = sum(getattr(cost, part) for part in _PARTS)
    if inside > cost.arena_bytes:
        raise FormatError(f"{where}: arena_bytes is {cost.arena_bytes}, but what lies in it adds up to {inside}")
    _check_measured(cost, where)
    _check_seconds(cost, where)
    if cost.micro_batch is not None and cost.batch is not None and cost.micro_batch > cost.batch:
        raise FormatError(f"{where}: micro_batch exceeds batch")
    if cost.conditions is not None:
        check_fields(cost.conditions, f"{where}: conditions", signed={"temperature_celsius"})
    if cost.timeline is not None:
        check_timeline(cost.timeline, f"{where}: timeline")
    if cost.plan is not None:
        check_plan(cost.plan, f"{where}: plan", arena_bytes=cost.arena_bytes)


def _check_measured(cost: Any, where: str) -> None:
    peak = cost.measured_peak_bytes
    if cost.fits and peak is None:
        raise FormatError(f"{where}: fits, but measured_peak_bytes is missing")
    if not cost.fits and peak is not None:
        raise FormatError(f"{where}: does not fit, but measured_peak_bytes is there")
    if cost.fits and cost.reason is not None:
        raise FormatError(f"{where}: fits, but reason says why it would not")
    if not cost.fits and not cost.reason:
        raise FormatError(f"{where}: does not fit, but reason is missing")
    if peak is None:
        if cost.unexplained_bytes is not None:
            raise FormatError(f"{where}: unexplained_bytes is there without a measurement")
        return
    if cost.unexplained_bytes is not None and cost.unexplained_bytes != peak - cost.predicted_peak_bytes:
        raise FormatError(f"{where}: unexplained_bytes is not measured_peak_bytes - predicted_peak_bytes")
    if peak < cost.base_bytes:
        raise FormatError(f"{where}: measured_peak_bytes is below base_bytes")
    for name in ("measured_peak_minimum_bytes", "anonymous_bytes", "file_bytes", "proportional_bytes"):
        value = getattr(cost, name)
        if value is not None and value > peak:
            raise FormatError(f"{where}: {name} exceeds measured_peak_bytes")
    if cost.base_minimum_bytes is not None and cost.base_minimum_bytes > cost.base_bytes:
        raise FormatError(f"{where}: base_minimum_bytes exceeds base_bytes")


def _check_seconds(cost: Any, where: str) -> None:
    ordered = [cost.step_seconds_minimum, cost.step_seconds_median, cost.step_seconds_maximum]
    known = [value for value in ordered if value is not None]
    if known != sorted(known):
        raise FormatError(f"{where}: step_seconds_minimum, _median and _maximum are not in order")
    if cost.prefix_seconds is not None and known and cost.prefix_seconds > known[-1]:
        raise FormatError(f"{where}: prefix_seconds exceeds a whole step")


def check_timeline(timeline: Any, where: str) -> None:
    """What was sampled of a process; raises FormatError."""
    seconds, resident = timeline.seconds, timeline.resident_bytes
    if len(seconds) != len(resident) or len(seconds) > _MOST_SAMPLES:
        raise FormatError(f"{where}: seconds and resident_bytes must have the same length, at most {_MOST_SAMPLES}")
    if list(seconds) != sorted(seconds) or (seconds and not 0 <= seconds[0] <= seconds[-1] < math.inf):
        raise FormatError(f"{where}: seconds do not rise from zero")
    if any(not 0 <= value <= _LARGEST_BYTES for value in resident):
        raise FormatError(f"{where}: resident_bytes contains a number that is not a size")
    start, end = timeline.step_started_seconds, timeline.step_ended_seconds
    if (start is None) != (end is None) or (start is not None and not 0 <= start <= end < math.inf):
        raise FormatError(f"{where}: step_started_seconds and step_ended_seconds do not enclose a step")


def check_plan(plan: Any, where: str, *, arena_bytes: int = _LARGEST_BYTES) -> None:
    """The plan of a step over time, in an arena of `arena_bytes`; raises FormatError."""
    columns = msgspec.structs.asdict(plan)
    if len({len(column) for column in columns.values()}) != 1 or len(plan.work) > _MOST_SAMPLES:
        raise FormatError(f"{where}: its columns must have the same length, at most {_MOST_SAMPLES}")
    if list(plan.work) != sorted(plan.work) or any(not 0 <= share <= 1 for share in plan.work):
        raise FormatError(f"{where}: work does not rise from 0 to 1")
    for name, column in columns.items():
        if name != "work" and any(not 0 <= value <= arena_bytes for value in column):
            raise FormatError(f"{where}: {name} holds a number that does not fit the arena")
    for instruction, alive in enumerate(zip(*(columns[part] for part in _PARTS), strict=True)):
        if sum(alive) > arena_bytes:
            raise FormatError(f"{where}: at instruction {instruction} more is alive than arena_bytes")


def check_fields(struct: Any, where: str, *, signed: set[str] | frozenset[str] = frozenset()) -> None:
    """Ranges by the units in the names of the fields of one struct; raises FormatError."""
    for name, value in msgspec.structs.asdict(struct).items():
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, str):
            _check_text(name, value, where)
        elif isinstance(value, int | float):
            _check_number(name, value, where, signed)


def _check_number(name: str, value: float, where: str, signed: set[str] | frozenset[str]) -> None:
    if name.endswith("_bytes"):
        if value < 0 and name not in _SIGNED:
            raise FormatError(f"{where}: {name} is negative")
        if abs(value) > _LARGEST_BYTES:
            raise FormatError(f"{where}: {name} is larger than any memory")
    elif "seconds" in name:
        if not 0 <= value < math.inf:
            raise FormatError(f"{where}: {name} is not a duration")
    elif name in _POSITIVE:
        if not 1 <= value <= _LARGEST_BYTES:
            raise FormatError(f"{where}: {name} is not above zero")
    elif not math.isfinite(value) or abs(value) > _LARGEST_BYTES or (value < 0 and name not in signed):
        raise FormatError(f"{where}: {name} is out of range")


def _check_text(name: str, value: str, where: str) -> None:
    """Names are printed to terminals and written into pages: no control characters, no essays."""
    if len(value) > _LONGEST_TEXT:
        raise FormatError(f"{where}: {name} is longer than {_LONGEST_TEXT} characters")
    if not value.isprintable():
        raise FormatError(f"{where}: {name} holds characters that cannot be printed")
