"""Pictures of a profile as inline SVG: bars of what a peak is made of, one step over time, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from device_profiles.profile import Cost
from device_profiles.timeline import PlanTimeline, Timeline

MB = float(1 << 20)
COLOURS = {
    "runtime base": "#8c96a3",
    "staging": "#c3cad3",
    "workspace": "#d9c7a3",
    "frozen weights": "#b9a3d9",
    "parameters": "#2f6db5",
    "optimizer state": "#73a9dd",
    "activations": "#e08a2e",
    "gradients": "#3f9b6c",
    "temporaries": "#e8c35a",
    "alignment": "#444444",
}
MEASURED = "#b3202c"
WIDE, NARROW = 880, 360
"""Widths of a picture: on a screen, and on a phone, where one that is scaled down cannot be read."""
_CHARACTER = 6.7
_ROW = 30
_LABEL_ROW = 16
_EDGE = 4
_ROOM = 90
_BAR = 18
_PLOT_HEIGHT = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 36


def legend(names: Sequence[str], *, measured: str | None = None) -> str:
    """Coloured squares with their names."""
    items = [f'<span class="key"><i style="background:{COLOURS[name]}"></i>{escape(name)}</span>' for name in names]
    if measured is not None:
        items.append(f'<span class="key"><i class="line" style="background:{MEASURED}"></i>{escape(measured)}</span>')
    return f'<p class="legend">{"".join(items)}</p>'


def stacked_bars(costs: Sequence[Cost], limit_bytes: int | None, *, width: int = WIDE) -> str:
    """One bar a program: the parts of the promise, dotted what is unexplained, a red mark at what was measured.

    A dashed line stands at the limit. Names stand before their bars, in a narrow picture above them.
    """
    widest = max([*(cost.predicted_peak_bytes for cost in costs), *(c.measured_peak_bytes or 0 for c in costs), 1])
    if limit_bytes is not None and limit_bytes < 2 * widest:
        widest = max(widest, limit_bytes)
    above = _LABEL_ROW if width == NARROW else 0
    labels = 16 + _CHARACTER * max(len(_label(cost)) for cost in costs) if costs and not above else _EDGE
    said = max([_ROOM, *(_CHARACTER * len(_fate(cost)) for cost in costs)])
    scale = _Scale(0, widest * 1.02, labels, width - said)
    height = (_ROW + above) * len(costs) + 34
    body = [_vertical_grid(scale, 6, height - 26)]
    for row, cost in enumerate(costs):
        y = 8 + row * (_ROW + above)
        at = f'x="0" y="{y + 10}"' if above else f'x="{labels - 8:.1f}" y="{y + 13}" text-anchor="end"'
        body.append(f"<text {at}>{escape(_label(cost))}</text>{_bar(cost, scale, y + above)}")
    if limit_bytes is not None and limit_bytes <= widest:
        x = scale(limit_bytes)
        body.append(f'<line class="limit" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 26}"/>')
    return _svg(width, height, "".join(body), "memory of every program at its peak")


def _label(cost: Cost) -> str:
    return cost.program if cost.batch is None else f"{cost.program}, batch {cost.batch}"


def _fate(cost: Cost) -> str:
    """What stands at the end of a bar without a measurement."""
    if cost.measured_peak_bytes is not None:
        return ""
    return "does not fit" if cost.died_at_bytes is None else f"does not fit (died at {cost.died_at_bytes / MB:.0f})"


def _bar(cost: Cost, scale: _Scale, y: float) -> str:
    pieces = []
    start = 0
    for part, size in cost.parts_bytes.items():
        if size > 0:
            left, right = scale(start), scale(start + size)
            pieces.append(
                f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 0.4):.1f}" height="{_BAR}" '
                f'fill="{COLOURS[part]}"><title>{escape(part)}: {size / MB:.2f} MB</title></rect>'
            )
        start += size
    if cost.measured_peak_bytes is None:
        pieces.append(f'<text x="{scale(start) + 6:.1f}" y="{y + 13}" class="bad">{_fate(cost)}</text>')
    else:
        x = scale(cost.measured_peak_bytes)
        if (cost.unexplained_bytes or 0) > 0:
            pieces.append(
                f'<rect class="rest" x="{scale(start):.1f}" y="{y}" width="{x - scale(start):.1f}" height="{_BAR}">'
                f"<title>unexplained: {(cost.unexplained_bytes or 0) / MB:.2f} MB</title></rect>"
            )
        pieces.append(
            f'<line x1="{x:.1f}" y1="{y - 3}" x2="{x:.1f}" y2="{y + _BAR + 3}" stroke="{MEASURED}" stroke-width="2.5">'
            f"<title>measured: {cost.measured_peak_bytes / MB:.2f} MB</title></line>"
            f'<text x="{x + 6:.1f}" y="{y + 13}">{cost.measured_peak_bytes / MB:.1f} MB</text>'
        )
    return "".join(pieces)


def step_timeline(cost: Cost, timeline: Timeline | None, plan: PlanTimeline | None, *, width: int = WIDE) -> str:
    """The first step: measured resident memory over what the plan says is alive, base and workspace below it.

    Without a `timeline` the plan alone, over the seconds of a usual step.
    """
    if timeline is None:
        usual = cost.step_seconds_median or 1.0
        timeline = Timeline(seconds=(), resident_bytes=(), step_started_seconds=0.0, step_ended_seconds=usual)
    start, end = timeline.step_started_seconds, timeline.step_ended_seconds
    if start is None or end is None or end <= start:
        if not timeline.seconds:
            return ""
        start, end = 0.0, max(timeline.seconds[-1], 1e-6)
        plan = None
    margin = (end - start) * 0.04
    inside = [
        (t, b) for t, b in zip(timeline.seconds, timeline.resident_bytes, strict=True) if start - margin <= t <= end
    ]
    before = [b for t, b in zip(timeline.seconds, timeline.resident_bytes, strict=True) if t < start - margin]
    levels = [(start - margin, before[-1]), *inside] if before else inside
    if levels:
        levels.append((end, levels[-1][1]))
    elif plan is None:
        return ""
    top = max([b for _, b in levels] + [cost.predicted_peak_bytes]) * 1.06
    x = _Scale(start - margin, end, _LEFT, width - _RIGHT)
    y = _Scale(0, top, _PLOT_HEIGHT - _BOTTOM, _TOP)
    body = [_horizontal_grid(y, _LEFT, width - _RIGHT)]
    if plan is not None:
        body += _areas(cost, plan, x, y, start, end)
    if levels:
        path = " ".join(_steps(levels, x, y))
        body.append(f'<path d="{path}" fill="none" stroke="{MEASURED}" stroke-width="2"/>')
    body.append(_time_axis(x, start, end))
    return _svg(width, _PLOT_HEIGHT, "".join(body), f"{cost.program}: memory over its first step")


def _areas(cost: Cost, plan: PlanTimeline, x: _Scale, y: _Scale, start: float, end: float) -> Iterator[str]:
    times = [start + share * (end - start) for share in plan.work] + [end]
    columns: list[tuple[str, Sequence[int]]] = [
        ("runtime base", [cost.base_bytes] * len(plan.work)),
        ("staging", [cost.staging_bytes] * len(plan.work)),
        ("workspace", [cost.workspace_bytes] * len(plan.work)),
        ("frozen weights", [cost.frozen_bytes] * len(plan.work)),
        ("parameters", plan.parameters_bytes),
        ("optimizer state", plan.optimizer_state_bytes),
        ("activations", plan.activations_bytes),
        ("gradients", plan.gradients_bytes),
        ("temporaries", plan.temporaries_bytes),
    ]
    floor = [0] * len(plan.work)
    for name, values in columns:
        roof = [below + value for below, value in zip(floor, values, strict=True)]
        if any(values):
            upper = list(_outline(times, roof, x, y))
            lower = list(_outline(times, floor, x, y))[::-1]
            yield f'<polygon points="{" ".join(upper + lower)}" fill="{COLOURS[name]}"/>'
        floor = roof
    outside = cost.base_bytes + cost.staging_bytes + cost.workspace_bytes + cost.frozen_bytes
    touched = [outside + value for value in plan.touched_bytes]
    points = " ".join(_outline(times, touched, x, y))
    yield f'<polyline points="{points}" class="touched"/>'


def _outline(times: Sequence[float], values: Sequence[int], x: _Scale, y: _Scale) -> Iterator[str]:
    for position, value in enumerate(values):
        yield f"{x(times[position]):.1f},{y(value):.1f}"
        yield f"{x(times[position + 1]):.1f},{y(value):.1f}"


def _steps(levels: Sequence[tuple[float, int]], x: _Scale, y: _Scale) -> Iterator[str]:
    yield f"M{x(levels[0][0]):.1f} {y(levels[0][1]):.1f}"
    for time, value in levels[1:]:
        yield f"L{x(time):.1f} {y(value):.1f}"


def scatter(points: Sequence[tuple[str, int, int]], *, size: int = NARROW) -> str:
    """Predicted (x) against measured (y), with the line where they are equal and the band of 5 % around it."""
    if not points:
        return ""
    values = [value for _, predicted, measured in points for value in (predicted, measured)]
    low, high = min(values) * 0.9, max(values) * 1.05
    x = _Scale(low, high, _LEFT, size - _RIGHT)
    y = _Scale(low, high, size - _BOTTOM, _TOP)
    band = [(low, low * 1.05), (high / 1.05, high), (high, high), (high, high * 0.95), (low / 0.95, low), (low, low)]
    shape = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in band)
    body = [
        _horizontal_grid(y, _LEFT, size - _RIGHT),
        _vertical_grid(x, _TOP, size - _BOTTOM),
        f'<polygon points="{shape}" fill="#2f6db5" opacity="0.12"/>',
        f'<line x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}" class="even"/>',
    ]
    for name, predicted, measured in points:
        body.append(
            f'<circle cx="{x(predicted):.1f}" cy="{y(measured):.1f}" r="4" fill="{MEASURED}" fill-opacity="0.75">'
            f"<title>{escape(name)}: predicted {predicted / MB:.1f}, measured {measured / MB:.1f} MB</title></circle>"
        )
    body.append(f'<text x="{size - _RIGHT}" y="{size - 4}" text-anchor="end">predicted, MB</text>')
    body.append(f'<text x="{_LEFT + 4}" y="{_TOP + 12}">measured, MB</text>')
    return _svg(size, size, "".join(body), "predicted against measured peaks")


class _Scale:
    """A value to a position of the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high
        self._start = start
        self._factor = (end - start) / (high - low) if high > low else 0.0

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) * self._factor

    def ticks(self, count: int = 6) -> list[float]:
        """Round values in megabytes."""
        span = max((self.high - self.low) / MB, 1e-9)
        step = 10.0 ** math.floor(math.log10(span / count))
        step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
        first = math.ceil(self.low / MB / step)
        return [number * step * MB for number in range(first, int(self.high / MB / step) + 1)]

    def labelled(self, count: int = 6) -> list[tuple[float, str]]:
        """The same with their labels; the last one says the unit."""
        ticks = self.ticks(count)
        return [(t, f"{t / MB:g}{' MB' if t == ticks[-1] else ''}") for t in ticks]


def _vertical_grid(scale: _Scale, top: float, bottom: float) -> str:
    return "".join(
        f'<line class="grid" x1="{scale(t):.1f}" y1="{top}" x2="{scale(t):.1f}" y2="{bottom}"/>'
        f'<text class="tick" x="{scale(t):.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>'
        for t, label in scale.labelled()
    )


def _horizontal_grid(scale: _Scale, left: float, right: float) -> str:
    return "".join(
        f'<line class="grid" x1="{left}" y1="{scale(t):.1f}" x2="{right}" y2="{scale(t):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{scale(t) + 4:.1f}" text-anchor="end">{label}</text>'
        for t, label in scale.labelled(5)
    )


def _time_axis(x: _Scale, start: float, end: float) -> str:
    marks = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = start + share * (end - start)
        anchor = "end" if share == 1.0 else "middle"
        marks.append(
            f'<text class="tick" x="{x(at):.1f}" y="{_PLOT_HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}">'
            f"{(at - start) * 1000:.0f} ms</text>"
        )
    return "".join(marks)


def _svg(width: int, height: int, body: str, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{body}</svg>'
    )
