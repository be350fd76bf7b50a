"""`python -m tools.experiments.participation`: how much of a fleet each step reaches, by whose promises are asked.

A fleet of whole megabytes, drawn uniformly between two bounds, as in the paper's set-up; shares are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from device_profiles.files import atomic_file
from device_profiles.work import Whole, Work, grow, label
from server.engines.simulation.promises import promises_of
from server.engines.simulation.segments import ModelPieces
from server.fleet.virtual import PromiseSettings
from tools.experiments.promises.make import FILE, full_network

_MB = 1 << 20


@click.command(epilog="Example: python -m tools.experiments.participation --memory-mb 100 900")
@click.option("--memory-mb", type=(int, int), default=(100, 900), show_default=True, help="Least and most of a client.")
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=2),
    multiple=True,
    default=(64, 128),
    show_default=True,
    help="Examples in a step of this runtime and PyTorch; may be given several times.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("runs/experiments/participation.md"))
def main(memory_mb: tuple[int, int], batches: tuple[int, ...], output: Path) -> None:
    """Write the table of ResNet18 (width 64, four blocks) as Markdown and print it."""
    if not 1 <= memory_mb[0] <= memory_mb[1]:
        raise click.UsageError(f"--memory-mb {memory_mb[0]} {memory_mb[1]}: give the least first, at least 1")
    published = full_network(128, PromiseSettings(source="file", file=str(FILE)))
    partition = ModelPieces(published.model).partition
    works: list[Work] = [*(grow(partition, block.index) for block in partition.blocks), Whole()]
    tables = {"published thresholds": promises_of(published, works, partition)}
    for batch in batches:
        pytorch, runtime = (PromiseSettings(source=source) for source in ("pytorch", "runtime"))
        tables[f"PyTorch's tensors, batch {batch}"] = promises_of(full_network(batch, pytorch), works, partition)
        tables[f"this runtime, batch {batch}"] = promises_of(full_network(batch, runtime), works, partition)
    named = {
        title: {label(work, partition): needed for work, needed in promises.items()}
        for title, promises in tables.items()
    }
    lines = table_of(named, [label(work, partition) for work in works], memory_mb)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


def share(promise: int, memory_mb: tuple[int, int]) -> float:
    """Part of the fleet whose memory holds `promise` bytes."""
    least, most = memory_mb
    needed = max(least, -(-promise // _MB))
    return max(0, most - needed + 1) / (most - least + 1)


def table_of(tables: Mapping[str, Mapping[str, int]], names: Sequence[str], memory_mb: tuple[int, int]) -> list[str]:
    """MB and share of the fleet by step, a row for each set of promises."""
    titles = ["whole network" if name == "whole" else f"step {name.removeprefix('grow-block')}" for name in names]
    lines = [
        "Command: `python -m tools.experiments.participation`. MB of each step, and the share of a fleet with "
        f"{memory_mb[0]} to {memory_mb[1]} MB (whole numbers, uniform) that holds it.",
        "",
        f"| promises of ResNet18, width 64 | {' | '.join(titles)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for title, promises in tables.items():
        cells = [f"{promises[name] / _MB:.0f}: {share(promises[name], memory_mb):.1%}" for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
