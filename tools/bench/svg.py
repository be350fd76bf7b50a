"""The pieces that pictures written by hand share: text, round axes, and the document around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

INK, FAINT, GRID = "#1f2733", "#667085", "#e4e7ec"
_STYLE = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"


def document(width: int, height: int, parts: Sequence[str]) -> str:
    """One self-contained SVG file on white."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" style="{_STYLE}">',
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int,
    weight: int = 400,
    colour: str = INK,
    anchor: str = "start",
    turned: int = 0,
) -> str:
    """One line of escaped text, `turned` by degrees around its place."""
    turn = f' transform="rotate({turned} {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}"{turn}>{escape(words)}</text>'
    )


def axis_step(most: float, *, room: float = 1.1, whole: bool = False) -> tuple[float, float]:
    """Distance of the grid lines and the top of the axis: three to five lines at round numbers.

    `room` is how much higher than `most` the axis reaches at least, for labels. With `whole`, no line lies between
    whole numbers.
    """
    rough = most * room / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    if whole:
        step = math.ceil(step)
    return step, step * math.ceil(most * room / step)


def level_lines(left: float, right: float, places: Sequence[tuple[float, str]]) -> list[str]:
    """Grid lines from `left` to `right` at heights, each with its label; the first is the axis itself."""
    parts = []
    for number, (at, label) in enumerate(places):
        colour = FAINT if number == 0 else GRID
        parts.append(f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{colour}"/>')
        parts.append(text(left - 8, at + 4, label, size=11, colour=FAINT, anchor="end"))
    return parts
