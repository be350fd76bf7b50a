"""Profiles side by side: the first is the measure, differences of the others are marked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

from device_profiles.errors import UsageError
from device_profiles.profile import Cost, DeviceProfile
from profiler.report.records import records

_MB = float(1 << 20)
_TIME_FACTOR = 5
"""Seconds vary more than bytes: only differences this much above the threshold of memory are marked."""


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One profile's numbers for one program; `..._marked` where it differs from the first profile's."""

    fits: bool | None
    peak_bytes: int | None = None
    step_seconds: float | None = None
    peak_marked: bool = False
    step_marked: bool = False
    plan_marked: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One program over all profiles."""

    program: str
    cells: tuple[Cell, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Columns are profiles by name; `differences` lists what of the devices and versions is not the same."""

    names: tuple[str, ...]
    threshold: float
    differences: tuple[str, ...]
    rows: tuple[Row, ...]


def comparison_of(profiles: Sequence[DeviceProfile], *, threshold: float) -> Comparison:
    """Compare profiles of one model; raises UsageError where the models differ."""
    models = sorted({profile.model for profile in profiles})
    if len(models) > 1:
        raise UsageError(f"compare: the profiles are of different models ({', '.join(models)})")
    programs = list(dict.fromkeys(cost.program for profile in profiles for cost in profile.costs))
    rows = []
    for program in programs:
        first = profiles[0].cost(program)
        rows.append(
            Row(program=program, cells=tuple(_cell(profile.cost(program), first, threshold) for profile in profiles))
        )
    return Comparison(names=_names(profiles), threshold=threshold, differences=_differences(profiles), rows=tuple(rows))


def _cell(cost: Cost | None, first: Cost | None, threshold: float) -> Cell:
    if cost is None:
        return Cell(fits=None)
    if first is None:
        return Cell(fits=cost.fits, peak_bytes=cost.measured_peak_bytes, step_seconds=cost.step_seconds_median)
    return Cell(
        fits=cost.fits,
        peak_bytes=cost.measured_peak_bytes,
        step_seconds=cost.step_seconds_median,
        peak_marked=cost.fits != first.fits or _differs(cost.measured_peak_bytes, first.measured_peak_bytes, threshold),
        step_marked=_differs(cost.step_seconds_median, first.step_seconds_median, threshold * _TIME_FACTOR),
        plan_marked=cost.arena_bytes != first.arena_bytes,
    )


def _differs(value: float | None, measure: float | None, threshold: float) -> bool:
    if value is None or measure is None:
        return False
    return abs(value - measure) > threshold * measure


def _names(profiles: Sequence[DeviceProfile]) -> tuple[str, ...]:
    """Names of the devices, numbered where two are called the same."""
    names: list[str] = []
    for profile in profiles:
        name = profile.device.name
        if name in names:
            name = f"{name} ({sum(p.device.name == name for p in profiles[: len(names) + 1])})"
        names.append(name)
    return tuple(names)


def _differences(profiles: Sequence[DeviceProfile]) -> tuple[str, ...]:
    facts: dict[str, list[object]] = {
        "runtime": [p.runtime for p in profiles],
        "processor": [p.device.cpu_model for p in profiles],
        "architecture": [p.device.architecture for p in profiles],
        "kernel": [p.device.kernel for p in profiles],
        "limit": [None if p.device.limit_bytes is None else f"{p.device.limit_bytes / _MB:.0f} MB" for p in profiles],
        "threads": [p.measurement.threads for p in profiles],
        "bundle": [p.bundle_sha256[:12] for p in profiles],
    }
    for package in sorted({name for profile in profiles for name in profile.software}):
        facts[package] = [p.software.get(package) for p in profiles]
    return tuple(
        f"{name}: {' | '.join('unknown' if value is None else str(value) for value in values)}"
        for name, values in facts.items()
        if len(set(values)) > 1
    )


def comparison_table(found: Comparison) -> str:
    """A table for a terminal; `*` marks what differs from the first column."""
    width = max([24, *(len(name) + 2 for name in found.names)])
    first = max([16, *(len(row.program) + 1 for row in found.rows)])
    lines = [
        _meaning(found),
        f"{'':<{first}}" + "".join(f"{name:>{width}}" for name in found.names),
    ]
    for row in found.rows:
        lines.append(f"{row.program:<{first}}" + "".join(f"{_text(cell):>{width}}" for cell in row.cells))
    lines += [f"differs: {line}" for line in found.differences]
    return "\n".join(lines)


def comparison_html(found: Comparison) -> str:
    """The same for a page; a program is a row, and on a phone a paragraph."""
    rows = [(row.program, *(_text(cell).strip() for cell in row.cells)) for row in found.rows]
    marked = {(y, x + 1) for y, row in enumerate(found.rows) for x, cell in enumerate(row.cells) if _is_marked(cell)}
    table = records(("program", *found.names), rows, marked=marked)
    if not found.differences:
        return f"<p class='note'>{_meaning(found)}</p>{table}"
    listed = "".join(f"<li>{escape(line)}</li>" for line in found.differences)
    return f"<p class='note'>{_meaning(found)}</p>{table}<h2>What differs</h2><ul>{listed}</ul>"


def _meaning(found: Comparison) -> str:
    return (
        "peak in MB and seconds a step; * differs from the first "
        f"(peak by more than {found.threshold:.0%}, time by more than {found.threshold * _TIME_FACTOR:.0%}), "
        "! another plan"
    )


def _is_marked(cell: Cell) -> bool:
    return cell.peak_marked or cell.step_marked or cell.plan_marked


def _text(cell: Cell) -> str:
    if cell.fits is None:
        return "-"
    plan = "!" if cell.plan_marked else ""
    if not cell.fits or cell.peak_bytes is None:
        return f"does not fit{'*' if cell.peak_marked else ''}{plan}"
    peak = f"{cell.peak_bytes / _MB:.1f}{'*' if cell.peak_marked else ' '}{plan}"
    if cell.step_seconds is None:
        return peak
    return f"{peak} {cell.step_seconds:>8.3f}{'*' if cell.step_marked else ' '}"
