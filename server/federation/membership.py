"""Brings the SuperLink to `devices.json`: registers whom it does not know, and removes whom nobody names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from server.federation.home.devices import Device, Devices


class Registrar(Protocol):
    """What the SuperLink does for it."""

    def known(self) -> dict[str, int]:
        """Numbers of the nodes that are registered, by public key."""
        ...

    def register(self, public_key: str, name: str) -> int:
        """Register a node; its number."""
        ...

    def unregister(self, node_id: int) -> None:
        """Remove a node."""
        ...


def reconcile(devices: Devices, registrar: Registrar) -> Devices:
    """`devices` with Flower's numbers, after the SuperLink knows them and no others."""
    known = registrar.known()
    wanted = {device.public_key for device in devices.devices}
    for public_key, node_id in known.items():
        if public_key not in wanted:
            registrar.unregister(node_id)
    return devices.with_node_ids({d.public_key: _number(d, known, registrar) for d in _unique(devices.devices)})


def _number(device: Device, known: dict[str, int], registrar: Registrar) -> int:
    found = known.get(device.public_key)
    return registrar.register(device.public_key, device.name) if found is None else found


def _unique(devices: Sequence[Device]) -> list[Device]:
    return list({device.public_key: device for device in devices}.values())
