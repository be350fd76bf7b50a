"""From an invitation, or from files, to a state folder that a client starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.invitation import Invitation, Name
from device_profiles.promise import PREPARING_BYTES
from device_profiles.settings import Setting
from edge_runtime.device.federation.memory import EXPECTED_BYTES
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.fleet_api.address import Address
from edge_runtime.device.fleet_api.keys import NodeKey, ServerKey

LEAST_BYTES = EXPECTED_BYTES + PREPARING_BYTES
"""Below this no training would ever begin."""
_FOLDER = "profl-edge"
_MOST_FILE_BYTES = 1 << 20


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Files that a client is given instead of an invitation; None for those that it has already."""

    ca: Path | None = None
    key: Path | None = None
    server_key: Path | None = None


def user_folder() -> Path:
    """Where clients of this user keep their state."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / _FOLDER


def host_name() -> str:
    """Of this machine, as far as it can name a device."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in os.uname().nodename)
    return kept.lstrip("._-")[:64] or "device"


def state_folder(given: Path | None, name: str | None) -> StateFolder:
    """The folder that was asked for; without a name the only one that there is. Raises UsageError."""
    if given is not None:
        return StateFolder(given.absolute())
    if name is not None:
        return StateFolder(user_folder() / name)
    there = [path.parent for path in sorted(user_folder().glob("*/settings.json"))]
    if len(there) == 1:
        return StateFolder(there[0])
    if not there:
        raise UsageError(
            "this device belongs to no federation yet",
            remedy=("give ", Setting("invite"), " with the word that 'profl-server federation add-device' printed"),
        )
    names = ", ".join(path.name for path in there)
    raise UsageError(f"this device is part of several federations, as {names}", remedy=("give ", Setting("name")))


def set_up(state: StateFolder, options: Mapping[str, Any], *, invitation: Invitation | None, files: Files) -> Settings:
    """Keep who the device is, and the settings: those of the last start, changed by what is in `options`.

    Raises UsageError for what is missing or contradicts itself, FormatError for files that are not what they should be.
    """
    known: dict[str, Any] = {"name": state.path.name}
    if state.has_settings():
        known |= msgspec.structs.asdict(state.settings())
    known |= {name: value for name, value in options.items() if value is not None}
    if invitation is not None:
        known |= {"name": invitation.name, "address": invitation.address, "invited": True}
    if known.get("quiet_hours") == "none":
        known["quiet_hours"] = None
    _check_settings(known)
    settings = Settings(**known)
    _check_files(state, settings, invitation, files)
    state.make()
    if invitation is not None:
        state.write_secret(state.key, invitation.key)
        state.write_secret(state.ca, invitation.ca)
        state.write_secret(state.server_key, invitation.server_key)
    for path, place in ((files.ca, state.ca), (files.key, state.key), (files.server_key, state.server_key)):
        if path is not None:
            state.write_secret(place, _text(path))
    NodeKey.load(state.key)
    state.write_settings(settings)
    return settings


def _check_settings(known: Mapping[str, Any]) -> None:
    """Raise UsageError for what is missing or cannot be."""
    try:
        msgspec.convert(known["name"], Name)
    except msgspec.ValidationError:
        raise UsageError(
            "cannot name a device",
            field="name",
            value=known["name"],
            remedy="give up to 64 letters, digits, '.', '_' and '-'",
        ) from None
    if "address" not in known:
        raise UsageError("no SUPERLINK is given", remedy=("give its HOST:PORT, or ", Setting("invite")))
    where = Address.parse(known["address"])
    if known.get("insecure") and not where.is_loopback:
        raise UsageError(
            f"{where} is another machine",
            field="insecure",
            remedy="without TLS only a SuperLink of this machine can be joined; leave it out",
        )
    if "data" not in known:
        raise UsageError("this device has no data set yet", remedy=("give ", Setting("data")))
    if "limit_bytes" not in known:
        raise UsageError(
            "nothing says what memory a training may use", remedy=("give ", Setting("memory_limit"), " such as 128MB")
        )
    if known["limit_bytes"] < LEAST_BYTES:
        raise UsageError(
            f"{known['limit_bytes'] >> 20} MB are too few for the client and a training together",
            field="memory_limit",
            remedy=f"give {LEAST_BYTES >> 20}MB or more",
        )


def _check_files(state: StateFolder, settings: Settings, invitation: Invitation | None, files: Files) -> None:
    """Raise UsageError or FormatError before anything is written."""
    if files.key is not None:
        NodeKey.load(files.key)
    elif invitation is None and not state.key.exists():
        raise UsageError("nothing says who this device is", remedy=("give ", Setting("key"), " or ", Setting("invite")))
    if files.server_key is not None:
        try:
            ServerKey(_text(files.server_key).encode())
        except ProflError as error:
            raise error.at(str(files.server_key)) from None
    if invitation is None and files.ca is None and not state.ca.exists() and not settings.insecure:
        raise UsageError(
            "nothing says how to know the SuperLink",
            remedy=("give ", Setting("ca"), " with the federation's ca.crt"),
        )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_FILE_BYTES + 1)
        if len(data) > _MOST_FILE_BYTES:
            raise UsageError(f"{path}: is no file of a key or a certificate")
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not text; give it in PEM") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
