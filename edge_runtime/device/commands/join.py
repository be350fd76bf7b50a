"""`profl-edge join`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from device_profiles.errors import ExecutionError, UsageError
from device_profiles.settings import Setting
from edge_runtime.device.commands.options import FILE, nice_option
from edge_runtime.device.data.open import KNOWN
from edge_runtime.options import Finite, Size

if TYPE_CHECKING:
    from device_profiles.invitation import Invitation
    from edge_runtime.device.federation.settings import Settings
    from edge_runtime.device.federation.state import StateFolder

_START = Path(__file__).parents[1] / "federation" / "start.py"
_FOR_INVITE = ("address", "name", "insecure", "ca", "key", "server_key")
_SMALL = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""The client lives for as long as the device is on: what it does not need goes back to the system."""


@click.command(
    epilog="Example: profl-edge join fleet.local:9092 --ca ca.crt --key node.key --data npz:mine.npz "
    "--memory-limit 128MB --when idle,charging"
)
@click.argument("superlink", required=False)
@click.option(
    "--invite",
    metavar="WORD",
    help="Invitation of the federation, instead of SUPERLINK, --ca, --key and --server-key; '-' reads it from standard "
    "input.",
)
@click.option("--ca", type=FILE, help="Certificate that the SuperLink's is verified with (PEM).")
@click.option("--key", type=FILE, help="Private key of this device (PEM or OpenSSH), which only its owner may read.")
@click.option(
    "--server-key", type=FILE, help="Public key (PEM) of the federation's server; orders it did not sign are refused."
)
@click.option("--data", help=f"Data set: {KNOWN}.")
@click.option(
    "--memory-limit",
    "limit_bytes",
    type=Size(),
    metavar="SIZE",
    help="Hard limit of the client and its training together, such as 128MB.",
)
@click.option("--name", help="What the device calls itself [default: the name of the invitation, or of the machine].")
@click.option(
    "--state-dir",
    type=FILE,
    help="Folder for keys, settings, programs and checkpoints [default: profl-edge/NAME in the user's state folder].",
)
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Most threads of a training [default: as the server asks]."
)
@nice_option
@click.option("--when", help="Conditions for training: any of idle,charging,cool. 'always' takes them back.")
@click.option(
    "--quiet-hours", help="Hours of local time without training, such as 22:00-07:00. 'none' takes them back."
)
@click.option(
    "--max-download", "max_download_bytes", type=Size(), metavar="SIZE", help="Most of one task [default: 1GB]."
)
@click.option(
    "--cache-size", "cache_bytes", type=Size(), metavar="SIZE", help="Files that are kept for later [default: 1GB]."
)
@click.option("--insecure", is_flag=True, help="Without TLS, to a SuperLink of this machine.")
@click.option("--once", is_flag=True, help="End after one training task.")
@click.option("--systemd", is_flag=True, help="Print a systemd unit that starts this client, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the log as JSON, an object a line.")
@click.option("--system-root", type=FILE, default=Path("/"), hidden=True, help="Another place of /proc and /sys.")
@click.option("--ask-within", type=Finite(min=0.1), hidden=True, help="Most seconds between two questions.")
def join(
    superlink: str | None,
    invite: str | None,
    state_dir: Path | None,
    *,
    once: bool,
    systemd: bool,
    as_json: bool,
    system_root: Path,
    ask_within: float | None,
    **options: Any,
) -> int:
    """Train for the federation behind SUPERLINK (HOST:PORT): take tasks, train within the limit, send updates.

    The first start keeps keys and options in the state folder; later ones require none of them. The data never leave
    the device, and the log has a line for everything that does. SIGTERM and Ctrl-C end the training with a checkpoint.
    """
    from edge_runtime.device.federation.permission import parse_conditions, parse_hours

    options["address"] = superlink
    options["insecure"] = options["insecure"] or None
    invitation = None if invite is None else _invitation(invite, options)
    if options["when"] is not None:
        options["when"] = () if options["when"] == "always" else parse_conditions(options["when"])
    if options["quiet_hours"] not in (None, "none"):
        parse_hours(options["quiet_hours"])
    state, settings = _set_up(state_dir, invitation, options)
    if systemd:
        _print_unit(state, settings)
        return 0
    _become(state, settings, once=once, as_json=as_json, root=str(system_root), ask_within=ask_within)


def _invitation(word: str, options: dict[str, Any]) -> Invitation:
    """The invitation; raises UsageError for options that say what it says."""
    from device_profiles.invitation import decode_invitation

    given = next((key for key in _FOR_INVITE if options[key] is not None), None)
    if given == "address":
        raise UsageError(("SUPERLINK cannot be combined with ", Setting("invite")), remedy="leave one of the two out")
    if given is not None:
        raise UsageError(
            (Setting(given), " cannot be combined with ", Setting("invite")), remedy="leave one of the two out"
        )
    return decode_invitation(sys.stdin.read() if word == "-" else word)


def _set_up(
    state_dir: Path | None, invitation: Invitation | None, options: dict[str, Any]
) -> tuple[StateFolder, Settings]:
    from edge_runtime.device.federation.set_up import Files, host_name, set_up, state_folder

    files = Files(ca=options.pop("ca"), key=options.pop("key"), server_key=options.pop("server_key"))
    name = options["name"] if invitation is None else invitation.name
    if name is None and options["address"] is not None:
        name = host_name()
    state = state_folder(state_dir, name)
    if options["name"] is None and not state.has_settings():
        options["name"] = name
    return state, set_up(state, options, invitation=invitation, files=files)


def _print_unit(state: StateFolder, settings: Settings) -> None:
    import getpass

    from edge_runtime.device.federation.unit_file import start_command, unit_file

    command = start_command(str(state.path))
    click.echo(unit_file(settings, command, user=getpass.getuser(), folder=os.getcwd()))


def _become(state: StateFolder, settings: Settings, **more: object) -> NoReturn:
    """Replace this process by the client, which is a good deal smaller; `more`: other values of its `Start`."""
    import tempfile
    from importlib.metadata import version

    import msgspec

    document = {
        "settings": settings,
        "state": str(state.path),
        "release": version("profl-edge"),
        **more,
    }
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(document))
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        os.set_inheritable(file.fileno(), True)
        sys.stdout.flush()
        command = [sys.executable, "-I", str(_START), str(file.fileno())]
        try:
            os.execve(sys.executable, command, {**os.environ, **_SMALL})
        except OSError as error:
            raise ExecutionError(f"{sys.executable}: {error.strerror or error}") from None
