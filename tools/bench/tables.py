"""The results of `step.py` as tables, for a terminal and for a document."""

from __future__ import annotations

from tools.bench.results import MEGABYTE, TITLES, Cell, Results


def rows(results: Results, threads: int) -> list[list[str]]:
    """The table of one number of threads, its head first."""
    peers = [name for name in results.runtimes if name != "ours"]
    names = results.runtimes
    head = ["block", "units", "GFLOP", "floor ms"]
    head += [f"{TITLES[name]} ms" for name in names]
    head += [f"{TITLES['ours']}/{TITLES[name]}" for name in peers]
    head += [f"{TITLES['ours']}/floor", *(f"{TITLES[name]} MB" for name in names)]
    table = [head]
    for block in results.blocks:
        cells = {name: cell for name in names if (cell := results.cell(name, block.index, threads)) is not None}
        if not cells:
            continue
        floor = results.floor_seconds(block, threads)
        row = [str(block.index), block.units, f"{block.operations / 1e9:.1f}", f"{floor * 1e3:.1f}"]
        row += [f"{cells[name].step_seconds * 1e3:.1f}" for name in names]
        row += [_ratio(cells[name]) for name in peers]
        row += [f"{cells['ours'].step_seconds / floor:.2f}"]
        row += [f"{cells[name].peak_bytes / MEGABYTE:.1f}" for name in names]
        table.append(row)
    return table


def _ratio(cell: Cell) -> str:
    least, most = f"{cell.ours_to_this_least:.2f}", f"{cell.ours_to_this_most:.2f}"
    return f"{cell.ours_to_this:.2f}" + (f" ({least}-{most})" if least != most else "")


def summary(results: Results, threads: int) -> str:
    """The line below a table."""
    means = []
    for name in results.runtimes:
        mean = results.geometric_mean(name, threads) if name != "ours" else None
        if mean is not None:
            means.append(f"{TITLES['ours']}/{TITLES[name]} {mean:.2f}")
    rate = results.sgemm_gflops[threads]
    return f"geometric mean over the blocks: {', '.join(means) or 'no peer'}; sgemm {rate:.0f} GFLOP/s"


def text(results: Results) -> str:
    """Tables for a terminal."""
    parts = [_machine(results)]
    for threads in results.threads():
        table = rows(results, threads)
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        parts.append(f"\n{_threads(threads)}")
        parts += ["  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)) for row in table]
        parts.append(summary(results, threads))
    return "\n".join([*parts, *_left_out(results)])


def markdown(results: Results) -> str:
    """The same as a section for a document."""
    parts = [f"### {results.settings.model}", "", _machine(results)]
    for threads in results.threads():
        head, *body = rows(results, threads)
        parts += ["", f"**{_threads(threads)}**", ""]
        parts += [_line(head), _line(["---"] * len(head)), *map(_line, body)]
        parts += ["", f"{summary(results, threads)}."]
    return "\n".join([*parts, *_left_out(results)])


def _line(values: list[str]) -> str:
    return f"| {' | '.join(values)} |"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _machine(results: Results) -> str:
    device, settings = results.device, results.settings
    pairs = len({run.pair for run in results.runs})
    versions = ", ".join(f"{name} {version}" for name, version in results.software.items())
    options = f" ({settings.options})" if settings.options else ""
    return (
        f"{settings.model}{options}, batch {settings.batch}; {device.cpu_model}, {device.cpu_count} cores, "
        f"{device.architecture}; {versions}; pairs: {pairs}, timed steps in each process: {settings.steps}."
    )


def _left_out(results: Results) -> list[str]:
    return [f"\n{TITLES[name]} was left out: {reason}" for name, reason in results.left_out.items()]
