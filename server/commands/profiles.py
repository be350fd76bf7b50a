"""`profl-server profiles`: the registry of device profiles that plans are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from device_profiles.errors import FormatError, UsageError
from edge_runtime.groups import CommandGroup

if TYPE_CHECKING:
    from device_profiles.profile import DeviceProfile
    from server.registry.registry import Registry

_REGISTRY = click.option(
    "--registry",
    metavar="WHERE",
    default="profiles.db",
    show_default=True,
    envvar="PROFL_REGISTRY",
    show_envvar=True,
    help="An SQLite file, a folder, or the URL of a database: postgresql://user@host/name.",
)
_BATCH = 1000
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=CommandGroup, epilog="Example: profl-server profiles import profiles/ --registry profiles.db")
def profiles() -> None:
    """Keep the profiles of a fleet in one place: for `profl-server plan --profiles WHERE`."""


@profiles.command("import", epilog="Example: profl-server profiles import profiles/ --registry profiles.db")
@click.argument("sources", type=click.Path(path_type=Path), nargs=-1, required=True)
@_REGISTRY
@_JSON
def import_profiles(sources: tuple[Path, ...], registry: str, as_json: bool) -> None:
    """Add profiles of files, and of folders of files. A device's older profile of the same bundle is replaced.

    The registry is created if it does not exist: a name that ends in .db becomes an SQLite file, any other a folder.
    Files that cannot be read are named, and the others are imported.
    """
    from server.registry.transfer import files_of, read_files

    files = files_of(sources)
    damaged: list[FormatError] = []
    readable = _readable(read_files(files), damaged)
    opened, imported = None, 0
    while batch := list(islice(readable, _BATCH)):  # others who import at the same time wait for a batch, not for all
        opened = opened or _open(registry, create=True)
        opened.put(batch)
        imported += len(batch)
    if as_json:
        refused = [str(error) for error in damaged]
        click.echo(msgspec.json.encode({"registry": registry, "imported": imported, "refused": refused}).decode())
    elif imported:
        click.echo(f"imported {_count(imported)} into {registry}")
    _complain(damaged, f"{len(damaged)} of {len(files)} files were not imported")


@profiles.command("list", epilog="Example: profl-server profiles list --registry profiles.db")
@_REGISTRY
@_JSON
def list_profiles(registry: str, as_json: bool) -> None:
    """List devices, with the model that was measured and the memory that they may use."""
    from server.registry.registry import Entry

    damaged: list[FormatError] = []
    entries = []
    for entry in _open(registry).entries():
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            damaged.append(entry)
    if as_json:
        click.echo(msgspec.json.encode({"profiles": entries, "damaged": [str(error) for error in damaged]}).decode())
    else:
        width = max([len("device"), *(len(entry.device) for entry in entries)]) + 2
        click.echo(f"{'device':<{width}}{'model':<14}{'runtime':<9}{'MB':>8}  bundle")
        for entry in entries:
            budget = "-" if entry.budget_bytes is None else f"{entry.budget_bytes / 2**20:.1f}"
            bundle = entry.bundle_sha256[:12]
            click.echo(f"{entry.device:<{width}}{entry.model:<14}{entry.runtime:<9}{budget:>8}  {bundle}")
    _complain(damaged, f"{len(damaged)} profiles are damaged")


@profiles.command(epilog="Example: profl-server profiles show phone --registry profiles.db")
@click.argument("device")
@_REGISTRY
@_JSON
def show(device: str, registry: str, as_json: bool) -> None:
    """Show what was measured on DEVICE, for every bundle."""
    damaged: list[FormatError] = []
    found = list(_readable(_open(registry).profiles(device=device), damaged))
    if not found and not damaged:
        raise UsageError(f"{registry}: has no profile of {device}; see profl-server profiles list")
    if as_json:
        click.echo(msgspec.json.encode({"profiles": found}).decode())
    else:
        click.echo("\n\n".join(map(_table, found)))
    _complain(damaged, f"{len(damaged)} profiles are damaged")


@profiles.command(epilog="Example: profl-server profiles export -o profiles/ --registry profiles.db")
@click.option(
    "-o",
    "--output",
    metavar="WHERE",
    required=True,
    help="Folder to write a file a profile into; or another registry.",
)
@_REGISTRY
@_JSON
def export(output: str, registry: str, as_json: bool) -> None:
    """Write all profiles into a folder, or copy them into another registry."""
    source = _open(registry)
    damaged: list[FormatError] = []
    read = list(_readable(source.profiles(), damaged))
    try:
        target = _open(output, create=True)
    except UsageError as error:
        raise error.at("-o", " ") from None
    for start in range(0, len(read), _BATCH):
        target.put(read[start : start + _BATCH])
    if as_json:
        refused = [str(error) for error in damaged]
        click.echo(msgspec.json.encode({"output": output, "exported": len(read), "damaged": refused}).decode())
    else:
        click.echo(f"exported {_count(len(read))} to {output}")
    _complain(damaged, f"{len(damaged)} profiles are damaged and were not exported")


@profiles.command(epilog="Example: profl-server profiles remove old-phone --registry profiles.db")
@click.argument("device")
@_REGISTRY
@_JSON
def remove(device: str, registry: str, as_json: bool) -> None:
    """Remove every profile of DEVICE."""
    from server.registry.registry import Entry

    opened = _open(registry)
    keys = [entry.key for entry in opened.entries(device=device) if isinstance(entry, Entry)]
    if not keys:
        raise UsageError(f"{registry}: has no profile of {device}; see profl-server profiles list")
    opened.remove(keys)
    if as_json:
        click.echo(msgspec.json.encode({"registry": registry, "removed": len(keys)}).decode())
    else:
        click.echo(f"removed {_count(len(keys))} of {device}")


def _open(where: str, *, create: bool = False) -> Registry:
    from server.registry.opening import open_registry

    return open_registry(where, create=create)


def _readable(profiles: Iterable[DeviceProfile | FormatError], damaged: list[FormatError]) -> Iterator[DeviceProfile]:
    """Those that can be read; the others are added to `damaged`."""
    for profile in profiles:
        if isinstance(profile, FormatError):
            damaged.append(profile)
        else:
            yield profile


def _count(profiles: int) -> str:
    return "1 profile" if profiles == 1 else f"{profiles} profiles"


def _complain(damaged: list[FormatError], summary: str) -> None:
    """A line for everything that is damaged; the last one is the command's error."""
    if len(damaged) == 1:
        raise damaged[0]
    for error in damaged:
        click.echo(error, err=True)
    if damaged:
        raise FormatError(summary)


def _table(profile: DeviceProfile) -> str:
    """A device, and a line for each program: peaks in MB, seconds of a step."""
    device = profile.device
    limit = "-" if device.budget_bytes is None else f"{device.budget_bytes / 2**20:.1f} MB"
    lines = [
        f"{device.name}: {profile.model}, {profile.runtime}, bundle {profile.bundle_sha256[:12]}",
        f"{device.cpu_model or device.architecture}, may use {limit}, measured {profile.measurement.measured_at}",
        f"{'program':<24}{'predicted MB':>13}{'measured MB':>13}{'ms a step':>11}",
    ]
    for cost in profile.costs:
        peak = "-" if cost.measured_peak_bytes is None else f"{cost.measured_peak_bytes / 2**20:.1f}"
        step = "-" if cost.step_seconds_median is None else f"{cost.step_seconds_median * 1000:.2f}"
        lines.append(f"{cost.program:<24}{cost.predicted_peak_bytes / 2**20:>13.1f}{peak:>13}{step:>11}")
    return "\n".join(lines)
