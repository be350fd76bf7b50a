"""`profl-server plan`: which device trains which blocks of a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.work import Joint
from edge_runtime.options import Finite, OutputFile

_FILE = click.Path(path_type=Path)


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Errors of the body begin with the option that named what they are about."""
    try:
        yield
    except ProflError as error:
        raise error.at(option) from None


@click.command("plan", epilog="Example: profl-server plan --bundle bundles/resnet18 --profiles profiles/ -o plan.json")
@click.option("--bundle", type=_FILE, required=True, help="The bundle that was profiled.")
@click.option(
    "--profiles",
    metavar="WHERE",
    required=True,
    help="Folder of device profiles (*.json), one file, or a registry: an SQLite file or a database's URL.",
)
@click.option(
    "--margin", type=Finite(0, 1), default=0.05, show_default=True, help="Safety margin, as a part of the peak."
)
@click.option("--joint", is_flag=True, help="Give each device the longest run of blocks that fits it (method elastic).")
@click.option("-o", "--output", type=OutputFile(), help="Plan file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(bundle: Path, profiles: str, margin: float, joint: bool, output: Path | None, as_json: bool) -> None:
    """Assign the blocks of a bundle to the devices that they fit."""
    from device_profiles.files import write_json
    from edge_runtime.device.prepare.bundle import open_bundle
    from server.planner.planner import make_plan
    from server.planner.tables import plan_table
    from server.registry.transfer import by_device, read_profiles

    with _naming("--profiles"):
        found = read_profiles(profiles)
    with _naming("--bundle"):
        opened = open_bundle(bundle)
        if joint and not any(isinstance(program.work, Joint) for program in opened.manifest.programs):
            raise UsageError(f"{bundle}: has no programs for --joint; export it with --joint")
    with _naming("--profiles"):
        known = by_device(found, opened.digest, profiles)
    if joint and not any(isinstance(cost.work, Joint) for profile in known.values() for cost in profile.costs):
        raise UsageError("--joint: no profile contains runs of blocks; measure them with profl-profile --purpose joint")
    with _naming("--profiles"):
        made = make_plan(opened.manifest, opened.digest, known, margin=margin, joint=joint)
    if output is not None:
        write_json(output, made)
    click.echo(msgspec.json.encode(made).decode() if as_json else plan_table(made))
