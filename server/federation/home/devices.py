"""`devices.json`: who belongs to a federation. The SuperLink is brought to it, not the other way round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from device_profiles.contract import FORMAT_VERSION
from device_profiles.errors import UsageError
from device_profiles.files import read_json, to_json
from device_profiles.invitation import Name
from server.federation.home.folder import FederationFolder, write_private

DEVICES_NAME = "devices.json"


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device.

    Attributes:
        public_key: PEM; who has the private half is this device.
        added_at: seconds of the epoch.
        node_id: Flower's number of it; None before it was registered with the SuperLink.
        memory_limit_bytes, data: as in the line that was printed for it; None where it named none.
    """

    name: Name
    public_key: str
    added_at: float
    node_id: Annotated[int, msgspec.Meta(ge=0)] | None = None
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    data: str | None = None


class Devices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All devices, in the order in which they were added."""

    TITLE = "list of a federation's devices"

    devices: tuple[Device, ...] = ()
    format_version: int = FORMAT_VERSION

    def named(self, name: str) -> Device | None:
        """The device of that name."""
        return next((device for device in self.devices if device.name == name), None)

    def with_device(self, device: Device) -> Devices:
        """With another device. Raises UsageError where the name is taken."""
        if self.named(device.name) is not None:
            raise UsageError(
                f"{device.name}: is a device of the federation already",
                remedy=f"choose another name, or remove it first: profl-server federation remove-device {device.name}",
            )
        return msgspec.structs.replace(self, devices=(*self.devices, device))

    def without(self, name: str) -> Devices:
        """Without a device. Raises UsageError where there is none of that name."""
        if self.named(name) is None:
            known = ", ".join(device.name for device in self.devices) or "none"
            raise UsageError(f"{name}: is no device of the federation; its devices: {known}")
        return msgspec.structs.replace(self, devices=tuple(d for d in self.devices if d.name != name))

    def with_node_ids(self, node_ids: dict[str, int]) -> Devices:
        """With the numbers of nodes by public key; a key that is not there has no number."""
        replaced = (msgspec.structs.replace(d, node_id=node_ids.get(d.public_key)) for d in self.devices)
        return msgspec.structs.replace(self, devices=tuple(replaced))


def new_device(name: str, public_key: str, *, memory_limit_bytes: int | None, data: str | None) -> Device:
    """A device that is added now. Raises UsageError where the name cannot be one."""
    try:
        msgspec.convert(name, Name)
        if not name.isprintable():  # the end of a line, which a pattern's `$` lets pass
            raise msgspec.ValidationError
    except msgspec.ValidationError:
        raise UsageError(
            f"NAME {name!r}: is no name of a device", remedy="write 1 to 64 letters, digits, '.', '_' or '-'"
        ) from None
    return Device(
        name=name, public_key=public_key, added_at=time.time(), memory_limit_bytes=memory_limit_bytes, data=data
    )


def read_devices(folder: FederationFolder) -> Devices:
    """All devices. Raises FormatError naming the file."""
    path = _path(folder)
    return read_json(path, Devices) if path.exists() else Devices()


def write_devices(folder: FederationFolder, devices: Devices) -> None:
    """Keep them, whole or not at all; within `editing`."""
    write_private(_path(folder), to_json(devices))


@contextmanager
def editing(folder: FederationFolder) -> Iterator[Devices]:
    """The devices, while nobody else changes them or the SuperLink's nodes."""
    with folder.locked("devices", wait=True, held=""):
        yield read_devices(folder)


def node_names(folder: Path) -> dict[int, str]:
    """Names of devices by Flower's numbers, for the engine; empty where the folder is none of a federation."""
    devices = read_devices(FederationFolder.at(folder)).devices
    return {device.node_id: device.name for device in devices if device.node_id is not None}


def _path(folder: FederationFolder) -> Path:
    return folder.path / DEVICES_NAME
