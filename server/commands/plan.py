"""`profl-server plan`: which device trains what, from profiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.promise import DEFAULT_MARGIN
from device_profiles.settings import Setting
from device_profiles.work import Joint
from edge_runtime.options import Finite, OutputFile

if TYPE_CHECKING:
    from collections.abc import Collection

    from device_profiles.model import Partition
    from server.fleet.fleet import Fleet
    from server.planner.profiled import Gathering
    from server.planner.run_programs import RunPrograms

_FILE = click.Path(path_type=Path)


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Errors of the body begin with the option that named what they are about."""
    try:
        yield
    except ProflError as error:
        raise error.at(option) from None


@click.command("plan", epilog="Example: profl-server plan --bundle bundles/resnet18 --profiles profiles/ -o plan.json")
@click.option("--bundle", type=_FILE, help="Plan for the programs of this bundle, step by step.")
@click.option(
    "--fleet",
    "fleet_path",
    type=_FILE,
    help="Choose the steps as well, for the model of this fleet file; its own clients are not looked at.",
)
@click.option(
    "--profiles",
    metavar="WHERE",
    required=True,
    help="Folder of device profiles (*.json), one file, or a registry: an SQLite file or a database's URL.",
)
@click.option("--margin", type=Finite(0, 1), help="Safety margin, as a part of the peak [default: 0.05].")
@click.option("--joint", is_flag=True, help="Give each device the longest run of blocks that fits it (method elastic).")
@click.option("--blocks", type=click.IntRange(1), help="With --fleet: so many steps, the best there are.")
@click.option("--partition", help="With --fleet: these steps, as ranges of units, such as 0-2,3-8.")
@click.option(
    "--coverage", type=Finite(0, 1), help="With --fleet: part of the devices that must train each unit, if they can."
)
@click.option(
    "--costs",
    type=_FILE,
    help="With --fleet: table of what runs of units cost (costs.json). It is read if it is of this model, and written, "
    "unless it is a bundle's.",
)
@click.option("--why", "client", metavar="CLIENT", help="Show what one device could do, and why it does what it does.")
@click.option("--export", "export_to", type=_FILE, help="With --fleet: write the programs of the plan as a bundle.")
@click.option("--html", type=OutputFile(), help="With --fleet: HTML page to write.")
@click.option("-o", "--output", type=OutputFile(), help="Plan file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    bundle: Path | None,
    fleet_path: Path | None,
    profiles: str,
    joint: bool,
    margin: float | None,
    client: str | None,
    output: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Assign work to devices by their profiles.

    With --bundle, each device gets what fits it of the bundle's programs. With --fleet, the steps are chosen first, as
    method `planned` does it, and --export writes the programs that this takes. What a profile has not measured is
    predicted from it.
    """
    if (bundle is None) == (fleet_path is None):
        raise UsageError(
            ("either ", Setting("bundle"), " or ", Setting("fleet"), " says what is planned"), remedy="give one of them"
        )
    if bundle is not None:
        for given, key in (
            (chosen["export_to"], "export"),
            (chosen["html"], "html"),
            (chosen["blocks"], "blocks"),
            (chosen["partition"], "partition"),
            (chosen["coverage"], "coverage"),
            (chosen["costs"], "costs"),
        ):
            if given is not None:
                raise UsageError((Setting(key), " requires ", Setting("fleet")), remedy="give both, or leave it out")
        _plan_bundle(bundle, profiles, DEFAULT_MARGIN if margin is None else margin, joint, client, output, as_json)
        return
    assert fleet_path is not None
    if joint:
        raise UsageError((Setting("joint"), " requires ", Setting("bundle")), remedy="leave it out")
    if chosen["blocks"] is not None and chosen["partition"] is not None:
        raise UsageError(
            (Setting("blocks"), " cannot be combined with ", Setting("partition")), remedy="leave one of the two out"
        )
    _plan_fleet(fleet_path, profiles, margin, client, output, as_json, **chosen)


def _gathered(profiles: str, bundle_sha256: str, margin: float) -> Gathering:
    """The devices with profiles, of which no more is kept than a plan takes."""
    from server.planner.profiled import Gathering
    from server.registry.transfer import by_device, read_profiles

    gathered = Gathering(bundle_sha256, margin=margin)
    with _naming("--profiles"):
        for name, profile in by_device(read_profiles(profiles), bundle_sha256, profiles):
            gathered.add(name, profile)
    return gathered


def _plan_bundle(
    bundle: Path,
    profiles: str,
    margin: float,
    joint: bool,
    client: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    from device_profiles.files import write_json
    from edge_runtime.device.prepare.bundle import open_bundle
    from server.planner.planner import BundlePlan
    from server.planner.tables import candidates_table, plan_table

    with _naming("--bundle"):
        opened = open_bundle(bundle)
        if joint and not any(isinstance(program.work, Joint) for program in opened.manifest.programs):
            raise UsageError(f"{bundle}: has no programs for --joint; export it with --joint")
    gathered = _gathered(profiles, opened.digest, margin)
    _check_known(client, gathered.names)
    if joint and not any(isinstance(work, Joint) for work in gathered.works):
        raise UsageError("--joint: no profile contains runs of blocks; measure them with profl-profile --purpose joint")
    planned = BundlePlan(opened.manifest, gathered, joint=joint)
    made = planned.document(opened.digest, margin, gathered.names)
    if output is not None:
        write_json(output, made)
    if client is not None:
        steps = planned.candidates(client)
        click.echo(msgspec.json.encode(steps).decode() if as_json else candidates_table(steps))
        return
    click.echo(msgspec.json.encode(made).decode() if as_json else plan_table(made))


def _plan_fleet(
    fleet_path: Path,
    profiles: str,
    margin: float | None,
    client: str | None,
    output: Path | None,
    as_json: bool,
    *,
    blocks: int | None,
    partition: str | None,
    coverage: float | None,
    costs: Path | None,
    export_to: Path | None,
    html: Path | None,
) -> None:
    from device_profiles.contract import MANIFEST_NAME
    from device_profiles.files import write_json
    from server.engines.bundled.bundles import planned_bundle
    from server.fleet.reading import read_fleet
    from server.planner.fleet_plan import plan_fleet
    from server.planner.fleet_tables import fleet_table
    from server.planner.pace import pace_of
    from server.planner.planner import candidates_in
    from server.planner.tables import candidates_table, steps_table

    fleet = read_fleet(fleet_path)
    if export_to is not None and export_to.exists():
        raise UsageError("exists", field="export", value=export_to, remedy="choose another folder")
    gathered = _gathered(profiles, "", fleet.margin if margin is None else margin)
    _check_known(client, gathered.names)
    programs, given = _programs(fleet, partition, blocks, costs)
    pace = pace_of(fleet)
    there = gathered.fleet(programs, pace)
    made = plan_fleet(
        there.kinds,
        there.clients,
        len(programs.units),
        coverage=fleet.method.coverage if coverage is None else coverage,
        count=blocks,
        given=given,
        exact=there.exact,
        pace=pace,
    )
    made.steps.check_work()
    if costs is not None and not costs.with_name(MANIFEST_NAME).exists():  # a bundle's own belongs to its digest
        programs.write_table(costs)
    steps = None if client is None else candidates_in(there, made.steps.partition, client)
    if export_to is not None:
        planned_bundle(fleet, export_to, programs, made.steps.partition, made.programs)
        click.echo(f"wrote {export_to}: {len(made.programs)} training steps", err=True)
    if output is not None:
        write_json(output, made)
    if html is not None:
        from server.report.fleet_plan_page import fleet_plan_page
        from server.report.writing import write_page

        write_page(html, fleet_plan_page(made, there.clients, programs.units, f"Plan for {fleet.model.name}"))
    if as_json:
        shown = {"steps": made.steps, "classes": made.classes, "units": programs.units}
        click.echo(msgspec.json.encode(shown if steps is None else steps).decode())
    else:
        below = fleet_table(made) if steps is None else candidates_table(steps)
        click.echo(f"{steps_table(made.steps, programs.units)}\n\n{below}")


def _programs(
    fleet: Fleet, partition: str | None, blocks: int | None, costs: Path | None
) -> tuple[RunPrograms, Partition | None]:
    """What the fleet's model can be asked for, and the steps that somebody gave: on the command line, else in the fleet
    file unless a number of steps is asked for."""
    from device_profiles.trades import trades_of
    from edge_runtime.export.models.factory import find_models_in
    from server.fleet.words import in_words_of
    from server.planner.run_programs import RunPrograms

    if fleet.folder is not None:
        find_models_in(fleet.folder)
    with in_words_of(fleet.origin, fleet.model.name):
        programs = RunPrograms(fleet.model, fleet.training, trades=trades_of(fleet.method.variants))
        own = None if blocks is not None or partition is not None else fleet.model.partition
        given = None if own is None else programs.partition(own)
    if partition is not None:
        given = programs.partition(partition)
    if costs is not None:
        programs.read_table(costs)
    return programs, given


def _check_known(client: str | None, known: Collection[str]) -> None:
    if client is not None and client not in known:
        raise UsageError("has no profile", field="why", value=client, remedy=f"give one of {', '.join(known)}")
