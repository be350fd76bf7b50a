"""The command line of profl-server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.work import Joint
from edge_runtime.ending import as_process, exit_status
from edge_runtime.options import Finite, OutputFile
from server.commands.model import finish, merge
from server.commands.split import split

_PROGRAM = "profl-server"
_FILE = click.Path(path_type=Path)


@click.group()
def cli() -> None:
    """Plan the work of a fleet from device profiles, and run federated training."""


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Errors of the body begin with the option that named what they are about."""
    try:
        yield
    except ProflError as error:
        raise error.at(option) from None


@cli.command(epilog="Example: profl-server plan --bundle bundles/resnet18 --profiles profiles/ -o plan.json")
@click.option("--bundle", type=_FILE, required=True, help="The bundle that was profiled.")
@click.option("--profiles", type=_FILE, required=True, help="Folder of device profiles (*.json).")
@click.option(
    "--margin", type=Finite(0, 1), default=0.05, show_default=True, help="Safety margin, as a part of the peak."
)
@click.option("--joint", is_flag=True, help="Give each device the longest run of blocks that fits it (method elastic).")
@click.option("-o", "--output", type=OutputFile(), help="Plan file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(bundle: Path, profiles: Path, margin: float, joint: bool, output: Path | None, as_json: bool) -> None:
    """Assign the blocks of a bundle to the devices that they fit."""
    from device_profiles.files import read_json, write_json
    from device_profiles.profile import DeviceProfile
    from edge_runtime.device.prepare.bundle import open_bundle
    from server.planner.planner import make_plan
    from server.planner.tables import plan_table

    if not profiles.exists():
        raise UsageError(f"--profiles {profiles}: does not exist; create profiles with profl-profile")
    files = sorted(profiles.glob("*.json")) if profiles.is_dir() else [profiles]
    if not files:
        raise UsageError(f"--profiles {profiles}: contains no *.json; create profiles with profl-profile")
    known: dict[str, DeviceProfile] = {}
    for path in files:
        with _naming("--profiles"):
            profile = read_json(path, DeviceProfile)
        if profile.device.name in known:
            raise UsageError(
                f"--profiles {path}: is a second profile of {profile.device.name}; rename it with profl-profile --name"
            )
        known[profile.device.name] = profile
    with _naming("--bundle"):
        opened = open_bundle(bundle)
        if joint and not any(isinstance(program.work, Joint) for program in opened.manifest.programs):
            raise UsageError(f"{bundle}: has no programs for --joint; export it with --joint")
    if joint and not any(isinstance(cost.work, Joint) for profile in known.values() for cost in profile.costs):
        raise UsageError("--joint: no profile contains runs of blocks; measure them with profl-profile --purpose joint")
    with _naming("--profiles"):
        made = make_plan(opened.manifest, opened.digest, known, margin=margin, joint=joint)
    if output is not None:
        write_json(output, made)
    click.echo(msgspec.json.encode(made).decode() if as_json else plan_table(made))


@cli.command(epilog="Example: profl-server run --fleet examples/fleets/demo.toml -o runs/demo")
@click.option("--fleet", "fleet_path", type=_FILE, required=True, help="Fleet file (TOML).")
@click.option(
    "--engine",
    type=click.Choice(["local", "simulation"]),
    default="local",
    show_default=True,
    help="Real processes under their limits, or virtual clients.",
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
    output: Path,
    resume: bool,
    min_clients: int | None,
    no_whole_network: bool,
    as_json: bool,
) -> None:
    """Train a fleet with the method that its file names. The state is saved after every round.

    The engine `local` profiles, plans and trains with real processes under their memory limits. The engine `simulation`
    trains virtual clients in PyTorch.

    Ctrl-C and SIGTERM stop the run and its clients (exit status 130). --resume continues after the last round.
    """
    from server.commands.progress import TerminalProgress
    from server.commands.run import run_fleet, saved_as
    from server.fleet.reading import read_fleet
    from server.rounds.stopping import STOPPED_STATUS, Stopped, stop_signals
    from server.rounds.summary_table import summary_table

    progress = TerminalProgress()
    fleet = read_fleet(fleet_path)
    if min_clients is not None:
        fleet = fleet.with_min_clients(min_clients)
    try:
        with stop_signals():
            summary = run_fleet(
                fleet,
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


@cli.command(epilog="Example: profl-server report runs/demo --html report.html")
@click.argument("runs", type=_FILE, nargs=-1, required=True)
@click.option("--html", type=OutputFile(), help="HTML page to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def report(runs: tuple[Path, ...], html: Path | None, as_json: bool) -> None:
    """Show one run in full, or compare several, as a table; with --html also as a page with figures.

    A run can be shown while it is in progress.
    """
    from device_profiles.files import atomic_file
    from server.report.run_tables import as_object, report_table
    from server.report.runs import read_run

    read = [read_run(folder) for folder in runs]
    if html is not None:
        from server.report.page import report_page

        page = report_page(read)
        with atomic_file(html) as temporary:
            temporary.write_text(page, encoding="utf-8")
        click.echo(f"wrote {html}", err=True)
    click.echo(msgspec.json.encode(as_object(read)).decode() if as_json else report_table(read))


for _command in (split, merge, finish):
    cli.add_command(_command)


def main() -> None:
    """Entry point of profl-server."""
    sys.exit(as_process(_PROGRAM, _run))


def _run() -> int:
    return exit_status(_PROGRAM, lambda: cli.main(prog_name=_PROGRAM, standalone_mode=False))


if __name__ == "__main__":
    main()
