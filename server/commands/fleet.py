"""`profl-server fleet`: fleets that do not exist, for plans and simulations."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edge_runtime.options import OutputFile


@click.group()
def fleet() -> None:
    """Make fleet files."""


@fleet.command(epilog="Example: profl-server fleet synth --devices 1000 --memory uniform:100-900MB -o fleet.toml")
@click.option("--devices", type=click.IntRange(1), required=True, help="Number of clients.")
@click.option(
    "--memory",
    metavar="HOW",
    required=True,
    help="What clients may use: uniform:100-900MB, classes:phones, classes:boards, or classes:FILE.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    help="Fleet file whose other sections are kept; by default a small network learns MNIST's digits.",
)
@click.option("-o", "--output", type=OutputFile(), required=True, help="Fleet file to write (.toml or .json).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def synth(devices: int, memory: str, seed: int, like: Path | None, output: Path, as_json: bool) -> None:
    """Write a fleet file of virtual devices whose memory is drawn at random.

    The file says how clients are drawn rather than who they are, so that a million take a few lines.
    """
    from server.fleet.population import limits_mb, name_runs
    from server.fleet.reading import read_fleet
    from server.fleet.synthetic import synthesize

    synthesize(memory, devices=devices, seed=seed, like=like, output=output)
    written = read_fleet(output)
    population = written.population
    assert population is not None
    limits, classes = limits_mb(population, written.classes), written.classes
    runs = [(run.prefix.rstrip("-"), run.count) for run in name_runs(population, classes)]
    if as_json:
        report = {"output": str(output), "devices": devices, "classes": [{"name": n, "devices": c} for n, c in runs]}
        click.echo(msgspec.json.encode(report).decode())
        return
    click.echo(f"wrote {output}: {devices} devices of {limits.min()} to {limits.max()} MB")
    if classes:
        width = max(len(name) for name, _ in runs) + 2
        for (name, count), kind in zip(runs, classes, strict=True):
            click.echo(f"{name:<{width}}{count:>9}  {kind.memory_mb[0]} to {kind.memory_mb[1]} MB")
