"""The results of `step.py` as a picture: an SVG file, written by hand so that it needs no package."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from device_profiles.files import atomic_file
from tools.bench.results import MEGABYTE, TITLES, BlockFacts, Results, RuntimeName
from tools.bench.svg import FAINT, INK, axis_step, document, level_lines, text

_WIDTH = 920
_LEFT, _RIGHT = 64, 24
_HEAD, _PANEL, _PLOT_TOP, _PLOT = 84, 252, 44, 160
_COLOURS: dict[RuntimeName, str] = {"ours": "#2563eb", "pytorch": "#ea8a2d", "onnxruntime": "#9aa3b2"}
_LABELLED_BARS = 24
"""With more bars than this in a panel, their values would overlap."""

Value = Callable[[RuntimeName, BlockFacts], float | None]
_HALO = 'paint-order="stroke" stroke="#ffffff" stroke-width="3"'
"""Numbers stay readable where a floor's line crosses them."""


def draw(results: Results, path: Path) -> None:
    """Write the picture: milliseconds per step for each number of threads, then peak memory."""
    threads = results.threads()
    panels = [_seconds_panel(results, count) for count in threads]
    if threads:
        panels.append(_memory_panel(results, threads[-1]))
    height = _HEAD + _PANEL * len(panels) + 12
    parts = [
        text(_LEFT, 34, f"One training step of {results.settings.model}, block by block", size=18, weight=600),
        text(_LEFT, 54, _subtitle(results), size=12, colour=FAINT),
        *_legend(results),
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate(0 {_HEAD + number * _PANEL})">{panel}</g>')
    with atomic_file(path) as temporary:
        temporary.write_text(document(_WIDTH, height, parts))


def _subtitle(results: Results) -> str:
    device = results.device
    return f"batch {results.settings.batch}, float32, {device.cpu_model}, {device.architecture}; lower is better"


def _seconds_panel(results: Results, threads: int) -> str:
    def value(runtime: RuntimeName, block: BlockFacts) -> float | None:
        cell = results.cell(runtime, block.index, threads)
        return None if cell is None else cell.step_seconds * 1e3

    def floor(block: BlockFacts) -> float:
        return results.floor_seconds(block, threads) * 1e3

    title = f"Milliseconds per step, {threads} thread{'s' if threads > 1 else ''}"
    return _panel(results, title, value, floor=floor)


def _memory_panel(results: Results, threads: int) -> str:
    def value(runtime: RuntimeName, block: BlockFacts) -> float | None:
        cell = results.cell(runtime, block.index, threads)
        return None if cell is None else cell.peak_bytes / MEGABYTE

    return _panel(results, "Peak memory of the process, MB", value, floor=None)


def _panel(results: Results, title: str, value: Value, *, floor: Callable[[BlockFacts], float] | None) -> str:
    bars = {(name, block.index): value(name, block) for block in results.blocks for name in results.runtimes}
    most = max([bar for bar in bars.values() if bar is not None], default=1.0)
    step, top = axis_step(most)
    digits = max(0, 1 - math.floor(math.log10(most)))

    def y(amount: float) -> float:
        return _PLOT_TOP + _PLOT * (1 - amount / top)

    parts = [text(_LEFT, 22, title, size=14, weight=600)]
    lines = [(y(line * step), f"{line * step:g}") for line in range(round(top / step) + 1)]
    parts += level_lines(_LEFT, _WIDTH - _RIGHT, lines)
    group = (_WIDTH - _LEFT - _RIGHT) / max(1, len(results.blocks))
    width = min(46.0, group * 0.78 / len(results.runtimes))
    labelled = len(bars) <= _LABELLED_BARS
    for position, block in enumerate(results.blocks):
        centre = _LEFT + group * (position + 0.5)
        start = centre - width * len(results.runtimes) / 2
        numbers = []
        for place, name in enumerate(results.runtimes):
            amount = bars[name, block.index]
            if amount is not None:
                parts.append(_bar(start + width * place, y(amount), width, name))
                if labelled:
                    middle = start + width * (place + 0.5)
                    number = text(middle, y(amount) - 5, f"{amount:.{digits}f}", size=11, anchor="middle")
                    numbers.append(number.replace("<text ", f"<text {_HALO} ", 1))
        if floor is not None:
            at, end = y(floor(block)), start + width * len(results.runtimes)
            parts.append(
                f'<line class="floor" x1="{start - 5:.1f}" x2="{end + 5:.1f}" y1="{at:.1f}" y2="{at:.1f}" '
                f'stroke="{INK}" stroke-width="1.5" stroke-dasharray="5 3"/>'
            )
        parts += numbers
        parts.append(text(centre, _PLOT_TOP + _PLOT + 18, f"block {block.index}", size=12, anchor="middle"))
    return "".join(parts)


def _bar(x: float, y: float, width: float, name: RuntimeName) -> str:
    inner, height = width - 4, _PLOT_TOP + _PLOT - y
    return (
        f'<rect class="{name}" x="{x + 2:.1f}" y="{y:.1f}" width="{inner:.1f}" height="{height:.1f}" '
        f'rx="2" fill="{_COLOURS[name]}"/>'
    )


def _legend(results: Results) -> list[str]:
    parts, x = [], float(_LEFT)
    for name in results.runtimes:
        parts.append(f'<rect x="{x:.0f}" y="66" width="12" height="12" rx="2" fill="{_COLOURS[name]}"/>')
        parts.append(text(x + 18, 76, TITLES[name], size=12))
        x += 38 + 7 * len(TITLES[name])
    parts.append(
        f'<line x1="{x:.0f}" x2="{x + 24:.0f}" y1="72" y2="72" stroke="{INK}" stroke-width="1.5" '
        'stroke-dasharray="5 3"/>'
    )
    parts.append(text(x + 30, 76, "the block's arithmetic at the machine's sgemm rate", size=12))
    return parts
