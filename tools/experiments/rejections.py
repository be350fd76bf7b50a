"""`python -m tools.experiments.rejections STUDY`: how many honest updates a shortened study rejects."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from device_profiles.errors import UsageError
from server.fleet.fleet import Fleet
from server.rounds.observer import Observer
from server.rounds.run_state import RunFolder
from server.running.run_fleet import run_fleet
from tools.experiments.study import cases, read_study


@click.command(epilog='Example: python -m tools.experiments.rejections reduced --split "Dirichlet 0.5" --method ProFL')
@click.argument("study")
@click.option("--split", required=True, help="One of the study's splits.")
@click.option("--method", required=True, help="One of the study's methods.")
@click.option("--rounds", type=click.IntRange(min=1), default=16, show_default=True, help="Of the whole run.")
@click.option("--clients", type=click.IntRange(min=1), help="Drawn for a round; the study's own number without it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Run folder.")
def main(study: str, split: str, method: str, rounds: int, clients: int | None, output: Path) -> None:
    """Print updates, how many were rejected, and how many were cut down."""
    found = [case for case in cases(read_study(study), study) if (case.split, case.method) == (split, method)]
    if not found:
        raise UsageError(f"{study}: has no split '{split}' with a method '{method}'")
    fleet = shortened(found[0].fleet, rounds, clients)
    run_fleet(fleet, output, resume=True, observer=Observer(), note=lambda text: None, engine="simulation")
    records = RunFolder(output).records()
    updates = sum(result.status == "ok" for record in records for result in record.clients)
    rejected = sum(len(record.rejected) for record in records)
    click.echo(f"{updates} updates, {rejected} rejected, {sum(len(record.cut) for record in records)} cut down")


def shortened(fleet: Fleet, rounds: int, clients: int | None) -> Fleet:
    """The same fleet with few rounds in a stage, and hardly evaluated."""
    changed = msgspec.structs.replace
    return changed(
        fleet,
        training=changed(
            fleet.training,
            rounds=rounds,
            evaluate_every=1000,
            clients_per_round=clients or fleet.training.clients_per_round,
        ),
        freezing=changed(fleet.freezing, max_rounds=4),
        method=changed(fleet.method, shrink_rounds=2),
        data=changed(fleet.data, test_examples=64),
    )


if __name__ == "__main__":
    main()
