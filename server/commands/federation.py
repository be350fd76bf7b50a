"""`profl-server federation`: run Flower's SuperLink for a network of one's own, and say who belongs to it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from device_profiles.errors import UsageError
from device_profiles.extras import extra_remedy
from edge_runtime.groups import CommandGroup
from edge_runtime.options import OutputFile, Size

if TYPE_CHECKING:
    from server.federation.home.folder import FederationFolder

_FOLDER = click.Path(path_type=Path)
_DEFAULT = Path("federation")
_PLACE = click.argument("folder", type=_FOLDER, default=_DEFAULT)
_OF = click.option("--federation", "folder", type=_FOLDER, default=_DEFAULT, show_default=True, help="Its folder.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(
    cls=CommandGroup,
    epilog="Example: profl-server federation add-device board1 --data npz:mine.npz --memory-limit 128MB",
)
def federation() -> None:
    """Run a federation: devices of a network that train together, over TLS, each with a key of its own."""


@federation.command("up", epilog="Example: profl-server federation up --host 0.0.0.0")
@_PLACE
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Address or name by which devices reach this machine, and where it listens; 0.0.0.0 for all of its addresses. "
    "May be given several times; the first is what devices are told. Only this machine: 127.0.0.1, the default.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Port for devices; 0 for a free one.  [default: 9092]")
@click.option("--detach", is_flag=True, help="Return once it runs; `federation down` ends it.")
@_JSON
def up(folder: Path, hosts: tuple[str, ...], port: int | None, detach: bool, as_json: bool) -> None:
    """Start the federation in FOLDER, and make what it lacks: keys, certificates, its database.

    It runs until Ctrl-C. Without --host and --port, those of the last time are taken. A page in FOLDER shows devices
    and rounds.
    """
    _need_flower()
    from server.commands.federation_up import run_detached, run_here, say_next
    from server.federation.home.addresses import check_hosts
    from server.federation.home.folder import Settings

    place = _at(folder)
    settings = place.settings() if place.exists else Settings()
    check_hosts(hosts)
    settings = msgspec.structs.replace(
        settings, hosts=hosts or settings.hosts, port=settings.port if port is None else port
    )
    if detach:
        started = run_detached(place, settings)
        click.echo(msgspec.json.encode(started).decode()) if as_json else say_next(place, settings, started)
    else:
        sys.exit(run_here(place, settings, as_json=as_json))


@federation.command("down", epilog="Example: profl-server federation down")
@_PLACE
@_JSON
def down(folder: Path, as_json: bool) -> None:
    """End the federation in FOLDER, with all that it has started. Its devices and its state are kept."""
    from server.federation.processes import end_federation

    place = _at(folder)
    place.settings()
    ended = end_federation(place)
    if as_json:
        click.echo(msgspec.json.encode({"ended": ended}).decode())
    else:
        click.echo("the federation is down" if ended else "the federation was not up", err=True)


@federation.command("stop", epilog="Example: profl-server federation stop")
@_PLACE
@_JSON
def stop(folder: Path, as_json: bool) -> None:
    """Stop the run that goes on. The federation stays up, and the run can be resumed."""
    _need_flower()
    from server.federation.submit import stop_runs

    stopped = stop_runs(folder)
    if as_json:
        click.echo(msgspec.json.encode({"stopped": stopped}).decode())
    else:
        click.echo("stopped the run; --resume continues it" if stopped else "no run goes on", err=True)


@federation.command("add-device", epilog="Example: profl-server federation add-device board1 --memory-limit 128MB")
@click.argument("name")
@_OF
@click.option("--memory-limit", type=Size(), help="Limit to put into the line, as 128MB.")
@click.option("--data", help="Data to put into the line, as the device will find them.")
@click.option("--keep-key", type=OutputFile(), help="File to keep the device's private key in, for a stock SuperNode.")
@_JSON
def add_device(
    name: str, folder: Path, memory_limit: int | None, data: str | None, keep_key: Path | None, as_json: bool
) -> None:
    """Let a device in, and print the one line to paste on it.

    The line holds the device's private key, which is kept nowhere else: give it to that device alone.
    """
    _need_flower()
    from server.federation.admission import admit

    added = admit(_at(folder), name, memory_limit_bytes=memory_limit, data=data, keep_key=keep_key)
    if as_json:
        click.echo(msgspec.json.encode(added).decode())
        return
    if added.node_id is None:
        click.echo("the federation is not up: the device can join once it is", err=True)
    if data is None or memory_limit is None:
        click.echo("put the device's own data and limit in the place of DATA and LIMIT", err=True)
    click.echo(added.line)


@federation.command("remove-device", epilog="Example: profl-server federation remove-device board1")
@click.argument("name")
@_OF
@_JSON
def remove_device(name: str, folder: Path, as_json: bool) -> None:
    """Keep a device out from now on: its key is refused."""
    _need_flower()
    from server.federation.admission import expel

    at_once = expel(_at(folder), name)
    if as_json:
        click.echo(msgspec.json.encode({"removed": name, "at_once": at_once}).decode())
    else:
        click.echo(f"removed {name}" + ("" if at_once else "; it is refused once the federation is up"), err=True)


@federation.command("status", epilog="Example: profl-server federation status --html status.html")
@_PLACE
@click.option("--run", "run_folder", type=_FOLDER, help="Folder of the run; the one that was started last.")
@click.option("--html", type=OutputFile(), help="Page to write.")
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until Ctrl-C.")
@_JSON
def status(folder: Path, run_folder: Path | None, html: Path | None, watch: bool, as_json: bool) -> None:
    """Show devices, their memory and what each is doing, and the run: stage, round, accuracy."""
    _need_flower()
    from server.federation.status import StatusReader
    from server.federation.status_page import REFRESH_SECONDS, status_page
    from server.federation.status_table import status_lines
    from server.report.writing import write_page

    if watch and as_json:
        raise UsageError("--watch and --json cannot be combined; leave one of them out")
    place = _at(folder)
    place.settings()
    reader = StatusReader(place, run_folder)
    while True:
        found = reader.read()
        if html is not None:
            write_page(html, status_page(found))
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(msgspec.json.encode(found).decode() if as_json else "\n".join(status_lines(found)))
        if not watch:
            return
        time.sleep(REFRESH_SECONDS)


def _at(folder: Path) -> FederationFolder:
    from server.federation.home.folder import FederationFolder

    return FederationFolder.at(folder)


def _need_flower() -> None:
    """Raise UsageError where Flower is not installed. Nothing that it does then reaches beyond this machine."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    try:
        import cryptography
        import flwr
    except ImportError as error:
        raise UsageError(f"a federation needs the package {error.name}", remedy=extra_remedy("federation")) from None
    del cryptography, flwr
