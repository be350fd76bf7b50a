"""`profl-server run`: train a fleet."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

_FILE = click.Path(path_type=Path)


@click.command("run", epilog="Example: profl-server run --fleet examples/fleets/demo.toml -o runs/demo")
@click.option("--fleet", "fleet_path", type=_FILE, required=True, help="Fleet file (TOML).")
@click.option(
    "--engine",
    type=click.Choice(["local", "simulation", "flower"]),
    default="local",
    show_default=True,
    help="Real processes under their limits, virtual clients, or the devices of a federation.",
)
@click.option(
    "--federation",
    type=_FILE,
    help="Engine flower: folder of the federation, as for 'profl-server federation up' [default: federation].",
)
@click.option("-o", "--output", type=_FILE, default=Path("runs/latest"), show_default=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder, if there is one.")
@click.option(
    "--min-clients",
    type=click.IntRange(1),
    help="Clients that must deliver for a round to count; overrides training.min_clients of the fleet file. A resumed "
    "run may use another number.",
)
@click.option("--no-whole-network", is_flag=True, help="Do not measure which devices could train the whole network.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def run(
    fleet_path: Path,
    engine: str,
    federation: Path | None,
    output: Path,
    resume: bool,
    min_clients: int | None,
    no_whole_network: bool,
    as_json: bool,
) -> None:
    """Train a fleet with the method that its file names. The state is saved after every round.

    The engine `local` profiles, plans and trains with real processes under their memory limits. The engine `simulation`
    trains virtual clients in PyTorch. The engine `flower` trains on the devices of a federation, which 'profl-server
    federation up' has started on this machine.

    Ctrl-C and SIGTERM stop the run and its clients (exit status 130). --resume continues after the last round.
    """
    from device_profiles.errors import UsageError
    from server.fleet.reading import read_fleet
    from server.rounds.stopping import STOPPED_STATUS, Stopped, stop_signals
    from server.rounds.summary_table import summary_table
    from server.running.progress import TerminalProgress
    from server.running.run_fleet import run_fleet, saved_as

    progress = TerminalProgress()
    if federation is not None and engine != "flower":
        raise UsageError(f"--federation {federation}: requires --engine flower")
    try:
        with stop_signals():
            if engine == "flower":
                from server.serving.remote import run_on_federation

                summary = run_on_federation(
                    federation or Path("federation"),
                    fleet_path,
                    output,
                    resume=resume,
                    min_clients=min_clients,
                    note=progress.note,
                )
            else:
                fleet = read_fleet(fleet_path)
                summary = run_fleet(
                    fleet if min_clients is None else fleet.with_min_clients(min_clients),
                    output,
                    resume=resume,
                    observer=progress,
                    note=progress.note,
                    engine=engine,
                    compare_whole=not no_whole_network,
                )
    except Stopped as stopped:
        progress.note(f"profl-server: stopped by {stopped.name}: {saved_as(output)}, continue it with --resume")
        sys.exit(STOPPED_STATUS)
    click.echo(msgspec.json.encode(summary).decode() if as_json else summary_table(summary))
