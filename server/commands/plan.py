"""`profl-server plan`: which device trains what, from profiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.settings import Setting
from device_profiles.work import Joint
from edge_runtime.options import Finite, OutputFile

if TYPE_CHECKING:
    from device_profiles.profile import DeviceProfile

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
@click.option("--why", "client", metavar="CLIENT", help="Show what one device could do, and why it does what it does.")
@click.option("--export", "export_to", type=_FILE, help="With --fleet: write the programs of the plan as a bundle.")
@click.option("--html", type=OutputFile(), help="With --fleet: HTML page to write.")
@click.option("-o", "--output", type=OutputFile(), help="Plan file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    bundle: Path | None,
    fleet_path: Path | None,
    profiles: str,
    margin: float | None,
    joint: bool,
    client: str | None,
    export_to: Path | None,
    html: Path | None,
    output: Path | None,
    as_json: bool,
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
    from server.registry.transfer import read_profiles

    with _naming("--profiles"):
        found = read_profiles(profiles)
    if bundle is not None:
        for given, key in ((export_to, "export"), (html, "html")):
            if given is not None:
                raise UsageError((Setting(key), " requires ", Setting("fleet")), remedy="give both, or leave it out")
        _plan_bundle(bundle, found, profiles, 0.05 if margin is None else margin, joint, client, output, as_json)
        return
    assert fleet_path is not None
    if joint:
        raise UsageError((Setting("joint"), " requires ", Setting("bundle")), remedy="leave it out")
    _plan_fleet(fleet_path, found, profiles, margin, client, export_to, html, output, as_json)


def _plan_bundle(
    bundle: Path,
    found: list[DeviceProfile],
    profiles: str,
    margin: float,
    joint: bool,
    client: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    from device_profiles.files import write_json
    from edge_runtime.device.prepare.bundle import open_bundle
    from server.planner.planner import candidates_of, make_plan
    from server.planner.tables import candidates_table, plan_table
    from server.registry.transfer import by_device

    with _naming("--bundle"):
        opened = open_bundle(bundle)
        if joint and not any(isinstance(program.work, Joint) for program in opened.manifest.programs):
            raise UsageError(f"{bundle}: has no programs for --joint; export it with --joint")
    with _naming("--profiles"):
        known = by_device(found, opened.digest, profiles)
    _check_known(client, known)
    if joint and not any(isinstance(cost.work, Joint) for profile in known.values() for cost in profile.costs):
        raise UsageError("--joint: no profile contains runs of blocks; measure them with profl-profile --purpose joint")
    with _naming("--profiles"):
        made = make_plan(opened.manifest, opened.digest, known, margin=margin, joint=joint)
    if output is not None:
        write_json(output, made)
    if client is not None:
        steps = candidates_of(opened.manifest, opened.digest, client, known[client], margin=margin, joint=joint)
        click.echo(msgspec.json.encode(steps).decode() if as_json else candidates_table(steps))
        return
    click.echo(msgspec.json.encode(made).decode() if as_json else plan_table(made))


def _plan_fleet(
    fleet_path: Path,
    found: list[DeviceProfile],
    profiles: str,
    margin: float | None,
    client: str | None,
    export_to: Path | None,
    html: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    from device_profiles.files import write_json
    from edge_runtime.export.models.factory import find_models_in
    from server.engines.bundled.bundles import run_bundle
    from server.fleet.reading import read_fleet
    from server.fleet.words import in_words_of
    from server.planner.fleet_plan import plan_fleet
    from server.planner.fleet_tables import fleet_table
    from server.planner.needs import profiled_fleet
    from server.planner.planner import candidates_of
    from server.planner.run_programs import RunPrograms
    from server.planner.tables import candidates_table, steps_table
    from server.registry.transfer import by_device

    fleet = read_fleet(fleet_path)
    if fleet.folder is not None:
        find_models_in(fleet.folder)
    if export_to is not None and export_to.exists():
        raise UsageError("exists", field="export", value=export_to, remedy="choose another folder")
    with _naming("--profiles"):
        known = by_device(found, "", profiles)
    _check_known(client, known)
    with in_words_of(fleet.origin, fleet.model.name):
        programs = RunPrograms(fleet.model, fleet.training)
        given = None if fleet.model.partition is None else programs.partition(fleet.model.partition)
    with _naming("--profiles"):
        there = profiled_fleet(programs, known, margin=fleet.margin if margin is None else margin)
    made = plan_fleet(
        there.kinds,
        there.clients,
        len(programs.units),
        coverage=fleet.method.coverage,
        given=given,
        exact=there.exact,
    )
    margin = fleet.margin if margin is None else margin
    steps = None
    if client is not None:
        planned = programs.planned(made.steps.partition)
        steps = candidates_of(planned, "", client, known[client], margin=margin)
    if export_to is not None:
        run_bundle(fleet, export_to, partition=made.steps.partition, works=made.works)
        click.echo(f"wrote {export_to}: {len(made.works)} training steps", err=True)
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


def _check_known(client: str | None, known: dict[str, DeviceProfile]) -> None:
    if client is not None and client not in known:
        raise UsageError("has no profile", field="why", value=client, remedy=f"give one of {', '.join(known)}")
