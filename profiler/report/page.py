"""Profiles as one self-contained page: no script, no font, no picture from anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from device_profiles.pages import POLICY, page_style
from device_profiles.profile import Cost, DeviceProfile
from profiler.report.charts import COLOURS, MB, NARROW, WIDE, legend, scatter, stacked_bars, step_timeline
from profiler.report.compare import Comparison, comparison_html
from profiler.report.records import records
from profiler.report.table import device_line

_STYLE = """
.narrow { display: none; }
@media (max-width: 36rem) { .wide { display: none; } .narrow { display: block; } }
svg { display: block; }
svg text { font-size: 12px; fill: var(--text); }
svg .tick { fill: var(--quiet); font-size: 11px; }
svg .grid { stroke: var(--line); }
svg .limit { stroke: var(--text); stroke-dasharray: 6 4; stroke-width: 1.5; }
svg .bad { fill: var(--bad); }
svg .even { stroke: var(--quiet); }
svg .touched { fill: none; stroke: var(--text); stroke-width: 1.2; stroke-dasharray: 5 4; }
svg .rest { fill: none; stroke: #b3202c; stroke-width: .8; stroke-dasharray: 2 2; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; font-size: .85rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -1px; }
.key i.line { height: .2rem; vertical-align: 4px; }
.records { font-size: .88rem; }
.number { font-variant-numeric: tabular-nums; }
td.marked { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .88rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def page_of(profiles: Sequence[DeviceProfile]) -> str:
    """The page of `show`; every text of a profile is escaped, because profiles come from strangers."""
    title = "Device profile" if len(profiles) == 1 else "Device profiles"
    return _page(title, "".join(_profile(profile) for profile in profiles) + _accuracy(profiles))


def comparison_page(profiles: Sequence[DeviceProfile], found: Comparison) -> str:
    """The page of `compare`: what differs first, then what the peaks of each profile are made of."""
    body = [comparison_html(found)]
    for name, profile in zip(found.names, profiles, strict=True):
        body.append(f"<h2>{escape(name)}</h2>{_peaks(profile)}")
    return _page("Device profiles compared", "".join(body))


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<style>\n{page_style()}{_STYLE}</style></head>\n<body>"
        f"<h1>{title}</h1><p class='note'>Memory of the whole training process; 1 MB = 1,048,576 bytes.</p>"
        f"{body}</body></html>\n"
    )


def _accuracy(profiles: Sequence[DeviceProfile]) -> str:
    points = [
        (f"{profile.device.name}, {cost.program}", cost.predicted_peak_bytes, cost.measured_peak_bytes)
        for profile in profiles
        for cost in profile.costs
        if cost.measured_peak_bytes is not None and profile.runtime == "native"
    ]
    return (
        "<h2>Predicted against measured</h2><p class='note'>Every program once; the band is 5 % wide on either "
        f"side. {_worst(points)}</p>{scatter(points)}"
    )


def _both(drawn: Callable[[int], str]) -> str:
    """A picture for a screen and one for a phone, of which the page shows one."""
    wide, narrow = drawn(WIDE), drawn(NARROW)
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>' if wide else ""


def _names(profile: DeviceProfile) -> list[str]:
    return [name for name in COLOURS if any(cost.parts_bytes.get(name, 0) > 0 for cost in profile.costs)]


def _peaks(profile: DeviceProfile) -> str:
    """What the peaks are made of, as a picture."""
    bars = _both(lambda width: stacked_bars(profile.costs, profile.device.limit_bytes, width=width))
    return legend(_names(profile), measured="measured peak") + bars


def _profile(profile: DeviceProfile) -> str:
    parts = [
        f"<h2>{escape(device_line(profile).partition(' (MB =')[0])}</h2>",
        _facts(profile),
        "<h3>What the peak is made of</h3><p class='note'>Dotted: measured, and explained by none of the parts.</p>",
        _peaks(profile),
        "<h3>In numbers</h3>",
        _table(profile.costs),
    ]
    timed = [
        cost for cost in profile.costs if cost.plan is not None or (cost.timeline is not None and cost.timeline.seconds)
    ]
    if timed:
        parts.append(
            "<h3>One step over time</h3><p class='note'>The first step of a fresh process: red is its resident memory, "
            "sampled from outside, where that was kept. Below it, what the plan says is alive; dashed, what it has "
            "touched so far. Instructions stand where their estimated work puts them.</p>"
            + legend(_names(profile), measured="resident memory")
        )
    for cost in timed:
        parts.append(f"<h3>{escape(cost.program)}</h3>{_both(_step(cost))}")
    return "".join(parts)


def _step(cost: Cost) -> Callable[[int], str]:
    return lambda width: step_timeline(cost, cost.timeline, cost.plan, width=width)


def _facts(profile: DeviceProfile) -> str:
    device, measured = profile.device, profile.measurement
    facts = {
        "Processor": f"{device.cpu_model or 'unknown'}, {device.cpu_count or 'unknown'} cores"
        + (f", {device.cpu_quota:g} of them by quota" if device.cpu_quota is not None else ""),
        "Memory": f"{_mb(device.memory_total_bytes)}, {_mb(device.memory_available_bytes)} available",
        "Accelerator": ", ".join(f"{gpu.name} ({_mb(gpu.memory_total_bytes)})" for gpu in device.gpus) or "none found",
        "System": f"{device.architecture}, kernel {device.kernel}",
        "Software": ", ".join(f"{name} {version}" for name, version in profile.software.items()),
        "Measured": f"{measured.measured_at}, {measured.repetitions} x {measured.steps} steps",
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()) + "</dl>"


def _table(costs: Sequence[Cost]) -> str:
    head = ("program", "promised", "measured", "unexplained", "PSS", "step, s", "prefix, s", "page faults", "condition")
    rows = []
    for cost in costs:
        conditions = cost.conditions
        state = "unknown" if conditions is None or conditions.throttled is None else "free"
        if conditions is not None and conditions.throttled:
            state = conditions.throttled_because or "throttled"
        faults = "-" if cost.minor_faults is None else f"{cost.minor_faults} + {cost.major_faults or 0}"
        cells = (
            cost.program,
            f"{cost.predicted_peak_bytes / MB:.1f}",
            _plain(cost.measured_peak_bytes) if cost.fits else cost.reason or "does not fit",
            _plain(cost.unexplained_bytes),
            _plain(cost.proportional_bytes),
            "-" if cost.step_seconds_median is None else f"{cost.step_seconds_median:.3f}",
            "-" if cost.prefix_seconds is None else f"{cost.prefix_seconds:.3f}",
            faults,
            state,
        )
        rows.append(cells)
    return records(head, rows)


def _worst(points: Sequence[tuple[str, int, int]]) -> str:
    if not points:
        return "Nothing that this runtime predicts was measured."
    name, predicted, measured = max(points, key=lambda point: abs(point[1] - point[2]) / point[2])
    return f"The largest difference is {abs(predicted - measured) / measured:.1%} ({escape(name)})."


def _plain(value: int | None) -> str:
    return "-" if value is None else f"{value / MB:.1f}"


def _mb(value: int | None) -> str:
    return "unknown" if value is None else f"{value / MB:,.0f} MB"
