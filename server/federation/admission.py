"""Letting devices in and keeping them out."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

from device_profiles.invitation import Invitation
from server.federation.flower.control import control
from server.federation.home.addresses import public_address
from server.federation.home.certificates import authority_file
from server.federation.home.devices import Devices, editing, new_device, write_devices
from server.federation.home.folder import FederationFolder, read_private, write_private
from server.federation.home.keys import load_key, new_key, openssh, order_key_file, private_pem, public_pem
from server.federation.membership import reconcile
from server.federation.processes import running

_MB = 1 << 20


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A device that was let in: the `line` to paste on it; `node_id` is None where the federation is not up."""

    name: str
    line: str
    invitation: str
    address: str
    node_id: int | None


def admit(
    folder: FederationFolder, name: str, *, memory_limit_bytes: int | None, data: str | None, keep_key: Path | None
) -> Admitted:
    """Make a key for a device and register it. Raises UsageError where the name is taken or is none."""
    settings, key = folder.settings(), new_key()
    device = new_device(name, public_pem(key).decode(), memory_limit_bytes=memory_limit_bytes, data=data)
    up = running(folder)
    address = up.address if up is not None else public_address(settings.hosts, settings.port)
    invitation = Invitation(
        name=name,
        address=address,
        ca=read_private(authority_file(folder)).decode(),
        key=private_pem(key).decode(),
        server_key=public_pem(load_key(order_key_file(folder))).decode(),
    ).encoded()
    with editing(folder) as devices:
        with_it = devices.with_device(device)
        if keep_key is not None:
            write_private(keep_key, openssh(key))
        found = _keep(folder, with_it).named(name)
    line = f"profl-edge join --invite {invitation} --data {shlex.quote(data or 'DATA')}"
    line += f" --memory-limit {'LIMIT' if memory_limit_bytes is None else _size(memory_limit_bytes)}"
    node_id = found.node_id if found is not None else None
    return Admitted(name=name, line=line, invitation=invitation, address=address, node_id=node_id)


def expel(folder: FederationFolder, name: str) -> bool:
    """Keep a device out; whether that holds at once, because the federation is up. Raises UsageError for no device."""
    folder.settings()
    with editing(folder) as devices:
        _keep(folder, devices.without(name))
    return running(folder) is not None


def _keep(folder: FederationFolder, devices: Devices) -> Devices:
    """Write who belongs to the federation, and have its SuperLink know it where it runs; within `editing`."""
    write_devices(folder, devices)  # first of all: a SuperLink that does not answer learns it when it starts again
    state = running(folder)
    if state is None:
        return devices
    with control(folder, state.inner_port) as superlink:
        known = reconcile(devices, superlink)
    write_devices(folder, known)
    return known


def _size(size: int) -> str:
    return f"{size // _MB}MB" if size % _MB == 0 else f"{size}B"
