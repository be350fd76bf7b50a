"""`profl-server fleet`: fleets that do not exist, for plans and simulations."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edge_runtime.groups import CommandGroup
from edge_runtime.options import OutputFile


@click.group(
    cls=CommandGroup, epilog="Example: profl-server fleet synth --devices 1000 --memory uniform:100-900MB -o fleet.toml"
)
def fleet() -> None:
    """Make fleets of virtual devices, and plan for them."""


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


@fleet.command("plan", epilog="Example: profl-server fleet plan --fleet examples/fleets/simulation.toml -o plan.json")
@click.option("--fleet", "fleet_path", type=click.Path(path_type=Path), required=True, help="Fleet file.")
@click.option("--why", "client", metavar="CLIENT", help="Show what one client does.")
@click.option("--html", type=OutputFile(), help="HTML page to write.")
@click.option("-o", "--output", type=OutputFile(), help="Plan file to write (JSON).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, without the clients one by one.")
def plan_fleets(fleet_path: Path, client: str | None, html: Path | None, output: Path | None, as_json: bool) -> None:
    """Choose the steps for a fleet, and what its clients do in each, without training.

    Promises come from where the fleet file's [promises] says, as in a simulation. All clients are taken to need the
    same for the same work.
    """
    from device_profiles.files import write_json
    from edge_runtime.export.models.factory import find_models_in
    from server.engines.simulation.fleet_plan import plan_of_fleet
    from server.fleet.reading import read_fleet
    from server.fleet.words import in_words_of
    from server.planner.fleet_tables import fleet_table, why
    from server.planner.tables import steps_table

    read = read_fleet(fleet_path)
    if read.folder is not None:
        find_models_in(read.folder)
    with in_words_of(read.origin, read.model.name):
        plan, clients, units = plan_of_fleet(read)
    explained = None if client is None else why(plan, client, units)
    if output is not None:
        write_json(output, plan)
    if html is not None:
        from server.report.fleet_plan_page import fleet_plan_page
        from server.report.writing import write_page

        write_page(html, fleet_plan_page(plan, clients, units, f"Plan for {read.model.name}"))
    if as_json:
        click.echo(msgspec.json.encode({"steps": plan.steps, "classes": plan.classes, "units": units}).decode())
    else:
        click.echo(explained or f"{steps_table(plan.steps, units)}\n\n{fleet_table(plan)}")
