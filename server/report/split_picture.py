"""A split as one self-contained SVG: examples of every class at every client, their sizes, and how sizes are spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from device_profiles.errors import UsageError
from server.data.split_report import SplitReport
from server.report.drawing import COLOURS, FAINT, svg
from server.report.rendering import render
from server.report.text import shown

_WIDTH = 10.0
"""Inches; 960 pixels of a page."""
_LEFT, _RIGHT = 0.85, 0.3
_HEAD, _SIZES, _GAP, _BELOW = 1.0, 1.2, 0.12, 1.2
_MAP_HEIGHT = 5.0
_CLASS_HEIGHT = 0.25
_NAMED_CLIENTS = 40
"""With more of them their names would overlap; the columns are then numbered."""
_COUNTED_CELL = (0.36, 0.15)
"""Width and height from which a cell has room for its number."""
_LONGEST_NAME, _CHARACTER = 22, 0.075
_MOST_SHAPES = 5_000
"""A map of more cells is a picture of points in the file."""
_SHADES = LinearSegmentedColormap.from_list("few to many", ["#deebff", "#609ef7", "#2563eb", "#15265c"])


def draw_split(report: SplitReport) -> str:
    """The picture as the text of an SVG file; a client's exact numbers show under the pointer."""
    if not report.classes:
        raise UsageError(
            "an example has several labels or numbers, and no class by which a split could be drawn",
            field="output",
            remedy="leave it out",
        )
    counts = np.array([part.class_counts for part in report.clients]).T
    classes, clients = counts.shape
    names = [_short(shown(part.natural or part.client)) for part in report.clients]
    named = clients <= _NAMED_CLIENTS
    column = (_WIDTH - _LEFT - _RIGHT) / clients
    turned = named and max(map(len, names)) * _CHARACTER > column
    below_map = 0.2 + _CHARACTER * max(map(len, names)) * 0.65 if turned else 0.25 if named else 0.5
    map_height = min(_CLASS_HEIGHT * classes, _MAP_HEIGHT)
    height = _HEAD + _SIZES + _GAP + map_height + below_map + 0.35 + _BELOW + 0.5
    figure = Figure(figsize=(_WIDTH, height), dpi=200)

    def axes(left: float, top: float, width: float, tall: float) -> Any:
        """Of these places in inches, from above."""
        return figure.add_axes((left / _WIDTH, 1 - (top + tall) / height, width / _WIDTH, tall / height))

    _heading(figure, report, height)
    wide = _WIDTH - _LEFT - _RIGHT
    sizes = axes(_LEFT, _HEAD, wide, _SIZES)
    _draw_sizes(sizes, report)
    shades = axes(_LEFT, _HEAD + _SIZES + _GAP, wide, map_height)
    _draw_map(shades, counts, counted=column >= _COUNTED_CELL[0] and map_height / classes >= _COUNTED_CELL[1])
    _name_columns(shades, names, named=named, turned=turned)
    last = height - 0.5 - _BELOW
    _draw_histogram(axes(_LEFT, last, 4.6, _BELOW), report)
    _draw_legend(axes(6.6, last + 0.1, _WIDTH - 6.6 - _RIGHT, 0.16), int(counts.max()))
    return _with_pointers(svg(figure, cut=False), report, _HEAD, _SIZES + _GAP + map_height)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"


def _heading(figure: Figure, report: SplitReport, height: float) -> None:
    sizes = sorted(part.examples for part in report.clients)
    count = len(sizes)
    left_out = "" if report.used == report.examples else f" ({report.examples:,} in the data set)"
    lines = [
        f"{shown(report.source)} among {count} clients",
        f"{report.setting}, seed {report.seed}; {report.used:,} examples{left_out}",
        f"{sizes[0]:,} to {sizes[-1]:,} examples a client, median {sizes[count // 2]:,}; mean distance of a client's "
        f"classes from the whole {report.distance_mean:.2f} (0 none, 1 all)",
    ]
    figure.text(_LEFT / _WIDTH, 1 - 0.36 / height, lines[0], fontsize=13, weight="bold")
    for number, line in enumerate(lines[1:]):
        figure.text(_LEFT / _WIDTH, 1 - (0.56 + 0.19 * number) / height, line, fontsize=9, color=FAINT)


def _draw_sizes(axes: Any, report: SplitReport) -> None:
    clients = len(report.clients)
    axes.bar(range(clients), [part.examples for part in report.clients], width=0.9, color=COLOURS[0])
    axes.set_xlim(-0.5, clients - 0.5)
    axes.set_xticks([])
    axes.set_ylabel("examples", fontsize=9)
    _whole_levels(axes)


def _draw_map(axes: Any, counts: Any, *, counted: bool) -> None:
    classes, clients = counts.shape
    most = int(counts.max())
    drawn_as_points = counts.size > _MOST_SHAPES
    axes.pcolormesh(
        np.ma.masked_equal(counts, 0),
        cmap=_SHADES,
        norm=PowerNorm(0.5, vmin=0, vmax=most),
        edgecolors="none" if drawn_as_points or clients > 200 else "white",
        linewidth=min(1.0, 40 / clients),
        rasterized=drawn_as_points,
    )
    axes.set_ylim(classes, 0)
    axes.set_ylabel("class", fontsize=9)
    every = next((every for every in (1, 2, 5, 10, 20, 50, 100) if every * _MAP_HEIGHT / classes >= 0.14), 1000)
    axes.set_yticks(np.arange(0, classes, every) + 0.5, range(0, classes, every), color=FAINT, fontsize=8)
    axes.tick_params(length=0)
    if counted:
        for label, client in zip(*np.nonzero(counts), strict=True):
            count = int(counts[label, client])
            colour = "white" if count > most * 0.2 else "black"
            axes.text(
                client + 0.5, label + 0.5, f"{count:,}", ha="center", va="center_baseline", fontsize=7.5, color=colour
            )


def _name_columns(axes: Any, names: list[str], *, named: bool, turned: bool) -> None:
    if named:
        places = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
        axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=8, **places)
        return
    every = next((every for every in (1, 2, 5, 10, 20, 50, 100) if every * 20 >= len(names)), 1000)
    numbers = [1, *range(every, len(names) + 1, every)] if every > 1 else list(range(1, len(names) + 1))
    axes.set_xticks([number - 0.5 for number in numbers], numbers, fontsize=8, color=FAINT)
    axes.set_xlabel("client, in the fleet file's order", fontsize=9)


def _draw_histogram(axes: Any, report: SplitReport) -> None:
    """How many clients have how many examples."""
    sizes = [part.examples for part in report.clients]
    axes.set_title("How many clients have how many examples", loc="left", fontsize=9.5, weight="bold")
    axes.hist(sizes, bins=min(24, max(sizes)), range=(0, max(sizes)), color=COLOURS[0], rwidth=0.9)
    axes.set_xlabel("examples of a client", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("clients", fontsize=9)
    _whole_levels(axes)


def _draw_legend(axes: Any, most: int) -> None:
    """Of the map: deeper is more, white is none."""
    axes.set_title("Examples of a class at a client", loc="left", fontsize=9.5, weight="bold")
    edges = np.linspace(0, 1, 65) ** 2 * most
    axes.pcolormesh(
        np.linspace(0, 1, 65), [0, 1], edges[None, 1:], cmap=_SHADES, norm=PowerNorm(0.5, vmin=0, vmax=most), ec="face"
    )
    steps = MaxNLocator(4, integer=True).tick_values(0, most)
    counts = sorted({1, most, *(int(step) for step in steps if 0.02 * most < step < 0.8 * most)})
    axes.xaxis.set_major_locator(FixedLocator([(count / most) ** 0.5 for count in counts]))
    axes.set_xticklabels([f"{count:,}" for count in counts], fontsize=8, color=FAINT)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("white: none; shades follow the square root", fontsize=8.5, color=FAINT, loc="left")


def _whole_levels(axes: Any) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelsize=8, labelcolor=FAINT, length=0)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def _with_pointers(drawn: str, report: SplitReport, top: float, height: float) -> str:
    """The picture with an unseen column over each client, whose title says its numbers."""
    width = (_WIDTH - _LEFT - _RIGHT) / len(report.clients)
    columns = []
    for number, part in enumerate(report.clients):
        counts = ", ".join(f"{label}: {count}" for label, count in enumerate(part.class_counts) if count)
        name = part.client if part.natural is None else f"{part.client} = {part.natural}"
        said = shown(f"{name}: {part.examples} examples; by class {counts}")
        columns.append({"x": _points(_LEFT + number * width), "said": said})
    pointers = render("pointers.svg", columns=columns, top=_points(top), width=_points(width), height=_points(height))
    end = drawn.rindex("</svg>")
    return drawn[:end] + pointers + drawn[end:]


def _points(inches: float) -> str:
    return f"{inches * 72:.2f}"
