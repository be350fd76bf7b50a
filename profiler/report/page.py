"""Profiles as one self-contained page: no script, no font, no picture from anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from device_profiles.profile import Cost, DeviceProfile
from profiler.report.charts import COLOURS, MB, legend, scatter, stacked_bars, step_timeline
from profiler.report.table import device_line

_STYLE = """
body{font:15px/1.5 system-ui,"DejaVu Sans",sans-serif;color:#1d232b;background:#fff;max-width:920px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.15rem;margin:2rem 0 .3rem;border-top:1px solid #d5dae0;
padding-top:1rem} h3{font-size:1rem;margin:1.2rem 0 .2rem}
p{margin:.3rem 0} .note{color:#59636f;font-size:.88rem}
svg{max-width:100%;height:auto;display:block} svg text{font-size:12px;fill:#1d232b}
svg .tick{fill:#59636f;font-size:11px} td:last-child,th:last-child{text-align:left} td:first-child{white-space:nowrap}
svg .grid{stroke:#e4e8ec} svg .limit{stroke:#1d232b;stroke-dasharray:6 4;stroke-width:1.5} svg .bad{fill:#b3202c}
svg .rest{fill:none;stroke:#b3202c;stroke-width:.8;stroke-dasharray:2 2}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;font-size:.85rem} .key i{display:inline-block;width:.8rem;
height:.8rem;margin-right:.35rem;vertical-align:-1px} .key i.line{height:.2rem;vertical-align:4px}
table{border-collapse:collapse;font-size:.88rem;width:100%} th,td{text-align:right;padding:.2rem .5rem;
border-bottom:1px solid #e4e8ec;font-variant-numeric:tabular-nums} th:first-child,td:first-child{text-align:left}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.88rem} dt{color:#59636f} dd{margin:0}
"""


def page_of(profiles: Sequence[DeviceProfile]) -> str:
    """The whole page as HTML; every text of a profile is escaped, because profiles come from strangers."""
    points = [
        (f"{profile.device.name}, {cost.program}", cost.predicted_peak_bytes, cost.measured_peak_bytes)
        for profile in profiles
        for cost in profile.costs
        if cost.measured_peak_bytes is not None and profile.runtime == "native"
    ]
    title = "Device profile" if len(profiles) == 1 else "Device profiles"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1><p class='note'>Memory of the whole training process; 1 MB = 1,048,576 bytes.</p>"
        + "".join(_profile(profile) for profile in profiles)
        + "<h2>Predicted against measured</h2><p class='note'>Every program once; the band is 5 % wide on either "
        f"side. {_worst(points)}</p>" + scatter(points) + "</body></html>\n"
    )


def _profile(profile: DeviceProfile) -> str:
    names = [name for name in COLOURS if any(cost.parts_bytes.get(name, 0) > 0 for cost in profile.costs)]
    parts = [
        f"<h2>{escape(device_line(profile).partition(' (MB =')[0])}</h2>",
        _facts(profile),
        "<h3>What the peak is made of</h3><p class='note'>Dotted: measured, and explained by none of the parts.</p>",
        legend(names, measured="measured peak"),
        stacked_bars(profile.costs, profile.device.limit_bytes),
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
            + legend(names, measured="resident memory")
        )
    for cost in timed:
        parts.append(f"<h3>{escape(cost.program)}</h3>{step_timeline(cost, cost.timeline, cost.plan)}")
    return "".join(parts)


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
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>"


def _worst(points: Sequence[tuple[str, int, int]]) -> str:
    if not points:
        return "Nothing that this runtime predicts was measured."
    name, predicted, measured = max(points, key=lambda point: abs(point[1] - point[2]) / point[2])
    return f"The largest difference is {abs(predicted - measured) / measured:.1%} ({escape(name)})."


def _plain(value: int | None) -> str:
    return "-" if value is None else f"{value / MB:.1f}"


def _mb(value: int | None) -> str:
    return "unknown" if value is None else f"{value / MB:,.0f} MB"
