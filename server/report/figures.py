"""The figures of a report, as matplotlib draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from server.report.drawing import COLOURS, FAINT
from server.report.runs import Run, measure_of
from server.report.text import shown

_WIDTH = 9.0
_MB = float(1 << 20)
_ROUND = "round"
_LABEL_ROOM = 0.017
"""Part of a figure's width that the upright name of a stage takes."""


def measure_over_rounds(runs: Sequence[Run]) -> Figure:
    """Test accuracy (or loss) after every evaluated round, with the boundaries of a single run's stages."""
    figure, axes = _axes(_ROUND, f"test {measure_of(runs)}")
    for colour, run in zip(_colours(runs), runs, strict=True):
        rounds, values = run.reached()
        axes.plot(rounds, values, marker="o", markersize=3, color=colour)
    if len(runs) == 1:
        _mark_stages(axes, runs[0], {first: first - 0.5 for _, first, _ in runs[0].stages()})
    _finish(axes, runs)
    return figure


def measure_over_device_seconds(runs: Sequence[Run]) -> Figure:
    """The same against the seconds that all devices together have trained.

    A boundary of a single run lies where the last round of the stage before ended.
    """
    figure, axes = _axes("seconds of training, all devices together", f"test {measure_of(runs)}")
    for colour, run in zip(_colours(runs), runs, strict=True):
        rounds, values = run.reached()
        seconds = run.device_seconds()
        axes.plot([seconds[r] for r in rounds], values, marker="o", markersize=3, color=colour)
    if len(runs) == 1:
        ends = runs[0].device_seconds()
        _mark_stages(axes, runs[0], {first: ends.get(first - 1, 0.0) for _, first, _ in runs[0].stages()})
    _finish(axes, runs)
    return figure


def effective_movement(run: Run) -> Figure:
    """Effective movement of every stage with the last line fitted to it, and the slopes below, with the threshold."""
    settings = run.fleet.freezing
    figure = Figure(figsize=(_WIDTH, 5.0))
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    named: list[tuple[Line2D, str]] = []
    for (title, first, last), colour in zip(run.stages(), cycle(COLOURS), strict=False):
        own = [r for r in run.rounds if first <= r.round <= last and r.effective_movement is not None]
        if not own:
            continue
        rounds = np.array([r.round for r in own])
        values = np.array([r.effective_movement for r in own], dtype=np.float64)
        named += [(upper.plot(rounds, values, marker="o", markersize=3, color=colour)[0], title)]
        fitted = slice(-min(settings.fit_length, len(own)), None)
        if len(rounds[fitted]) > 1:
            slope, offset = np.polyfit(rounds[fitted], values[fitted], 1)
            upper.plot(rounds[fitted], slope * rounds[fitted] + offset, color="black", linewidth=1.2, linestyle="--")
        slopes = [(r.round, abs(r.slope)) for r in own if r.slope is not None]
        if slopes:
            lower.plot(*zip(*slopes, strict=True), marker="o", markersize=3, color=colour)
        if own[-1].froze_because is not None:
            upper.axvline(last, color=colour, linewidth=0.8, linestyle=":")
    lower.axhline(settings.threshold, color="#b3202c", linewidth=1)
    lower.annotate(
        "threshold", (0.995, settings.threshold), xycoords=("axes fraction", "data"), ha="right", va="bottom"
    )
    upper.set_ylabel("effective movement")
    upper.set_ylim(0, 1.05)
    lower.set_ylabel("|slope| a round")
    lower.set_xlabel(_ROUND)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    if named:
        _legend(upper, *zip(*named, strict=True), fontsize=8, ncols=4, loc="lower left")
    return figure


def participation(run: Run) -> Figure:
    """Share of the fleet with work in every stage."""
    stages = run.stages()
    shares = {title: next(r.participation for r in run.rounds if r.round == first) for title, first, _ in stages}
    figure, axes = _axes("", "clients with work, %", height=2.8)
    bars = axes.bar(range(len(shares)), [100 * share for share in shares.values()], color=COLOURS[0], width=0.6)
    axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks(range(len(shares)), [shown(title) for title in shares])
    axes.set_ylim(0, 112)
    return figure


def memory(run: Run) -> Figure:
    """Largest promise of every stage and, where processes were measured, the largest peak."""
    figure, axes = _axes("", "MB a client", height=2.8)
    titles, promised, measured = [], [], []
    for title, first, last in run.stages():
        results = [c for r in run.rounds if first <= r.round <= last for c in r.clients]
        titles.append(shown(title))
        promised.append(max((c.predicted_peak_bytes or 0 for c in results), default=0) / _MB)
        measured.append(max((c.measured_peak_bytes or 0 for c in results), default=0) / _MB)
    places = np.arange(len(titles))
    with_measured = any(measured)
    width = 0.38 if with_measured else 0.6
    axes.bar_label(axes.bar(places, promised, width, color=COLOURS[0], label="promised"), fmt="%.0f", padding=2)
    if with_measured:
        bars = axes.bar(places + width, measured, width, color=COLOURS[1], label="measured (VmHWM)")
        axes.bar_label(bars, fmt="%.0f", padding=2)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # above what the labels need
    axes.set_xticks(places + (width / 2 if with_measured else 0), titles)
    axes.margins(y=0.15)
    return figure


def communication(runs: Sequence[Run]) -> Figure:
    """Bytes of all clients in every round, down and up together."""
    figure, axes = _axes(_ROUND, "MB a round, down and up", height=2.8)
    for colour, run in zip(_colours(runs), runs, strict=True):
        moved = [(r.bytes_down + r.bytes_up) / _MB for r in run.rounds]
        axes.plot([r.round for r in run.rounds], moved, color=colour, drawstyle="steps-mid")
    axes.set_ylim(bottom=0)
    _finish(axes, runs)
    return figure


def _axes(x: str, y: str, *, height: float = 3.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots()
    axes.set_xlabel(x)
    if x == _ROUND:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(y)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _finish(axes: Any, runs: Sequence[Run]) -> None:
    if len(runs) > 1:
        _legend(axes, axes.lines, [run.name for run in runs], fontsize=9, loc="best")


def _legend(axes: Any, lines: Sequence[Line2D], names: Sequence[str], **places: Any) -> None:
    """A legend with any names: given as labels, those that begin with an underscore would be left out."""
    legend = axes.legend(lines, [str(number) for number in range(len(names))], frameon=False, **places)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(shown(name))


def _mark_stages(axes: Any, run: Run, starts: Mapping[int, float]) -> None:
    """A line where each stage begins, by its first round, with its name above unless the next one leaves no room."""
    stages = run.stages()
    if len(stages) < 2:
        return
    left, right = axes.get_xlim()
    left = min(left, *starts.values())
    axes.set_xlim(left, right)  # or lines would move what the room is measured by
    room = (right - left) * _LABEL_ROOM
    ends = [starts[first] for _, first, _ in stages[1:]] + [right]
    for (title, first, _), end in zip(stages, ends, strict=True):
        start = starts[first]
        axes.axvline(start, color="#9aa4b1", linewidth=0.8, linestyle=":")
        if end - start >= room:
            axes.annotate(
                shown(title),
                (start, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(1, 3),
                textcoords="offset points",
                rotation=90,
                va="bottom",
                fontsize=8,
                color=FAINT,
            )


def _colours(runs: Sequence[Run]) -> list[str]:
    return [COLOURS[position % len(COLOURS)] for position in range(len(runs))]
