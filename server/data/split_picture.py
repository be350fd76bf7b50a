"""A split as one self-contained SVG: examples of every class at every client, their sizes, and how sizes are spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from device_profiles.svg import FAINT, GRID, INK, axis_step, document, level_lines, text
from server.data.split_report import SplitReport

_WIDTH = 960
_LEFT, _RIGHT = 76, 24
_PLOT = _WIDTH - _LEFT - _RIGHT
_SIZES_TOP, _SIZES_HEIGHT = 104, 110
_MAP_TOP = _SIZES_TOP + _SIZES_HEIGHT + 14
_MAP_HEIGHT = 480
_BELOW_HEIGHT, _BELOW_PLOT = 190, 110
_LEVELS = 24
"""Shades of the map; one path for each keeps a map of 100 clients small."""
_NAMED_CLIENTS = 40
"""With more of them their names would overlap; the columns are then numbered."""
_COUNTED_CELL = (34.0, 14.0)
"""Width and height from which a cell has room for its number."""
_BAR = "#2563eb"
_RAMP = ((222, 235, 255), (96, 158, 247), (37, 99, 235), (21, 38, 92))
"""From few to many."""
_LONGEST_NAME, _CHARACTER = 22, 6.2

_Height = Callable[[float], float]


def draw_split(report: SplitReport) -> str:
    """The picture as the text of an SVG file; a client's exact numbers show under the pointer."""
    grid = _Grid(len(report.clients), report.classes)
    below = grid.bottom + (_names_height(report, grid) if grid.clients <= _NAMED_CLIENTS else 58)
    parts = [*_heading(report), *_sizes(report, grid), *_map(report, grid), *_client_axis(report, grid)]
    parts += [*_pointers(report, grid), *_histogram(report, below), *_shades(report, below)]
    return document(_WIDTH, round(below + _BELOW_HEIGHT), parts)


class _Grid:
    """Where the column of a client and the row of a class lie."""

    def __init__(self, clients: int, classes: int) -> None:
        self.clients, self.classes = clients, classes
        self.column = _PLOT / clients
        self.row = min(24.0, _MAP_HEIGHT / classes)
        self.bottom = _MAP_TOP + self.row * classes

    def x(self, client: int) -> float:
        """Left edge."""
        return _LEFT + self.column * client

    def y(self, label: int) -> float:
        """Upper edge."""
        return _MAP_TOP + self.row * label


def _heading(report: SplitReport) -> list[str]:
    sizes = sorted(part.examples for part in report.clients)
    count = len(sizes)
    spread = f"{sizes[0]:,} to {sizes[-1]:,} examples a client, median {sizes[count // 2]:,}"
    left_out = "" if report.used == report.examples else f" ({report.examples:,} in the data set)"
    return [
        text(_LEFT, 34, f"{report.source} among {count} clients", size=18, weight=600),
        text(
            _LEFT,
            54,
            f"{report.setting}, seed {report.seed}; {report.used:,} examples{left_out}",
            size=12,
            colour=FAINT,
        ),
        text(
            _LEFT,
            72,
            f"{spread}; mean distance of a client's classes from the whole {report.distance_mean:.2f} (0 none, 1 all)",
            size=12,
            colour=FAINT,
        ),
    ]


def _sizes(report: SplitReport, grid: _Grid) -> list[str]:
    most = max(part.examples for part in report.clients)
    step, top = axis_step(most, room=1.0, whole=True)
    bottom = _SIZES_TOP + _SIZES_HEIGHT

    def y(amount: float) -> float:
        return bottom - _SIZES_HEIGHT * amount / top

    parts = level_lines(_LEFT, _WIDTH - _RIGHT, _labelled_levels(step, top, y))
    gap = min(2.0, grid.column * 0.2)
    bars = "".join(
        f"M{grid.x(number) + gap / 2:.1f} {bottom}V{y(part.examples):.1f}h{grid.column - gap:.2f}V{bottom}z"
        for number, part in enumerate(report.clients)
    )
    parts.append(f'<path d="{bars}" fill="{_BAR}"/>')
    parts.append(text(18, bottom - _SIZES_HEIGHT / 2, "examples", size=12, anchor="middle", turned=-90))
    return parts


def _map(report: SplitReport, grid: _Grid) -> list[str]:
    most = max(max(part.class_counts) for part in report.clients)
    gap = min(1.0, grid.column * 0.12, grid.row * 0.12)
    paths: dict[int, list[str]] = {}
    numbers = []
    counted = grid.column >= _COUNTED_CELL[0] and grid.row >= _COUNTED_CELL[1]
    for client, part in enumerate(report.clients):
        for label, count in enumerate(part.class_counts):
            if not count:
                continue
            level = _level(count, most)
            x, y = grid.x(client) + gap / 2, grid.y(label) + gap / 2
            width, height = grid.column - gap, grid.row - gap
            paths.setdefault(level, []).append(f"M{x:.1f} {y:.1f}h{width:.2f}v{height:.2f}h{-width:.2f}z")
            if counted:
                colour = "#ffffff" if level > _LEVELS * 0.45 else INK
                middle = grid.x(client) + grid.column / 2
                numbers.append(text(middle, y + height / 2 + 4, f"{count:,}", size=10, colour=colour, anchor="middle"))
    parts = [
        f'<rect x="{_LEFT}" y="{_MAP_TOP}" width="{_PLOT}" height="{grid.row * grid.classes:.1f}" fill="none" '
        f'stroke="{GRID}"/>'
    ]
    parts += [f'<path d="{"".join(paths[level])}" fill="{_shade(level)}"/>' for level in sorted(paths)]
    every = _thinned(grid.row, 13)
    for label in range(0, grid.classes, every):
        parts.append(text(_LEFT - 8, grid.y(label) + grid.row / 2 + 4, str(label), size=11, colour=FAINT, anchor="end"))
    parts.append(text(18, (_MAP_TOP + grid.bottom) / 2, "class", size=12, anchor="middle", turned=-90))
    return parts + numbers


def _client_axis(report: SplitReport, grid: _Grid) -> list[str]:
    if grid.clients <= _NAMED_CLIENTS:
        turned = _names_are_turned(report, grid)
        shift, drop, anchor, angle = (4, 12, "end", -40) if turned else (0, 16, "middle", 0)
        return [
            text(
                grid.x(number) + grid.column / 2 + shift, grid.bottom + drop, name, size=11, anchor=anchor, turned=angle
            )
            for number, name in enumerate(_names(report))
        ]
    every = _thinned(grid.column, 40)
    numbered = [number for number in range(grid.clients) if number == 0 or (number + 1) % every == 0]
    parts = [
        text(grid.x(at) + grid.column / 2, grid.bottom + 16, str(at + 1), size=11, colour=FAINT, anchor="middle")
        for at in numbered
    ]
    middle = _LEFT + _PLOT / 2
    parts.append(text(middle, grid.bottom + 34, "client, in the fleet file's order", size=12, anchor="middle"))
    return parts


def _names(report: SplitReport) -> list[str]:
    """What stands below the columns: whose data it is, where that is known."""
    names = [part.natural or part.client for part in report.clients]
    return [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026" for name in names]


def _names_are_turned(report: SplitReport, grid: _Grid) -> bool:
    return max(map(len, _names(report))) * _CHARACTER > grid.column - 6


def _names_height(report: SplitReport, grid: _Grid) -> float:
    if not _names_are_turned(report, grid):
        return 40
    return 40 + _CHARACTER * max(map(len, _names(report))) * math.sin(math.radians(40))


def _pointers(report: SplitReport, grid: _Grid) -> list[str]:
    """An unseen column over each client that says its numbers."""
    parts = []
    for number, part in enumerate(report.clients):
        counts = ", ".join(f"{label}: {count}" for label, count in enumerate(part.class_counts) if count)
        name = part.client if part.natural is None else f"{part.client} = {part.natural}"
        said = escape(f"{name}: {part.examples} examples; by class {counts}")
        parts.append(
            f'<rect x="{grid.x(number):.1f}" y="{_SIZES_TOP}" width="{grid.column:.2f}" '
            f'height="{grid.bottom - _SIZES_TOP:.1f}" fill="none" pointer-events="all"><title>{said}</title></rect>'
        )
    return parts


def _histogram(report: SplitReport, top: float) -> list[str]:
    """How many clients have how many examples."""
    sizes = [part.examples for part in report.clients]
    step, end = axis_step(max(sizes), room=1.0, whole=True)
    bins = max(1, min(24, round(end / step) * 6))
    width = math.ceil(end / bins)
    counts = [0] * bins
    for size in sizes:
        counts[min(bins - 1, size // width)] += 1
    count_step, count_top = axis_step(max(counts), room=1.0, whole=True)
    left, right, bottom = float(_LEFT), _WIDTH * 0.6, top + 26 + _BELOW_PLOT

    def y(amount: float) -> float:
        return bottom - _BELOW_PLOT * amount / count_top

    def x(size: float) -> float:
        return left + (right - left) * size / (width * bins)

    parts = [text(left, top + 12, "How many clients have how many examples", size=13, weight=600)]
    parts += level_lines(left, right, _labelled_levels(count_step, count_top, y))
    bars = "".join(
        f"M{x(place * width) + 1:.1f} {bottom:.1f}V{y(count):.1f}H{x((place + 1) * width) - 1:.1f}V{bottom:.1f}z"
        for place, count in enumerate(counts)
        if count
    )
    parts.append(f'<path d="{bars}" fill="{_BAR}"/>')
    for line in range(round(end / step) + 1):
        if line * step <= width * bins:
            parts.append(
                text(x(line * step), bottom + 16, f"{line * step:,.0f}", size=11, colour=FAINT, anchor="middle")
            )
    parts.append(text((left + right) / 2, bottom + 34, "examples of a client", size=12, anchor="middle"))
    parts.append(text(18, (y(count_top) + bottom) / 2, "clients", size=12, anchor="middle", turned=-90))
    return parts


def _shades(report: SplitReport, top: float) -> list[str]:
    """The legend of the map: deeper is more, white is none."""
    most = max(max(part.class_counts) for part in report.clients)
    left, right, y = _WIDTH * 0.68, float(_WIDTH - _RIGHT - 16), top + 30
    width = (right - left) / _LEVELS
    parts = [text(left, top + 12, "Examples of a class at a client", size=13, weight=600)]
    for level in range(_LEVELS):
        parts.append(
            f'<rect x="{left + level * width:.1f}" y="{y:.1f}" width="{width + 0.4:.1f}" height="14" '
            f'fill="{_shade(level)}"/>'
        )
    step, _ = axis_step(most, room=1.0, whole=True)
    marks = {1, most, *(round(step * number) for number in range(1, 4) if step * number < most * 0.8)}
    for count in sorted(marks):
        at = left + (right - left) * math.sqrt(count / most)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y + 14:.1f}" y2="{y + 19:.1f}" stroke="{FAINT}"/>')
        parts.append(text(at, y + 32, f"{count:,}", size=11, colour=FAINT, anchor="middle"))
    parts.append(text(left, y + 54, "white: none; shades follow the square root", size=12, colour=FAINT))
    return parts


def _labelled_levels(step: float, top: float, y: _Height) -> list[tuple[float, str]]:
    return [(y(line * step), f"{line * step:,.0f}") for line in range(round(top / step) + 1)]


def _thinned(space: float, needed: float) -> int:
    """Label every so many, at round numbers."""
    return next((every for every in (1, 2, 5, 10, 20, 50, 100) if every * space >= needed), 1000)


def _level(count: int, most: int) -> int:
    """By the square root, so that small parts are told from none beside large ones."""
    return min(_LEVELS - 1, int(_LEVELS * math.sqrt(count / most)))


def _shade(level: int) -> str:
    place = level / (_LEVELS - 1) * (len(_RAMP) - 1)
    stop = min(int(place), len(_RAMP) - 2)
    pairs = zip(_RAMP[stop], _RAMP[stop + 1], strict=True)
    return "#" + "".join(f"{round(pale + (deep - pale) * (place - stop)):02x}" for pale, deep in pairs)
