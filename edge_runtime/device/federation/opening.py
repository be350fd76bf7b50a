"""Everything of a device that its handlers work with, from its settings and its state folder."""

from __future__ import annotations

from pathlib import Path

from device_profiles.errors import FormatError
from edge_runtime.device.federation.child import OwnUse
from edge_runtime.device.federation.count_examples import count_examples
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.journal import Journal
from edge_runtime.device.federation.memory import budget_bytes, peak_bytes
from edge_runtime.device.federation.permission import Permission
from edge_runtime.device.federation.pressure import MemoryPressure
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.federation.store import FileStore
from edge_runtime.device.fleet_api.keys import ServerKey
from edge_runtime.device.limits.own_group import OwnGroup


def open_device(
    settings: Settings,
    folder: Path,
    journal: Journal,
    *,
    release: str,
    root: Path = Path("/"),
    group: OwnGroup | None = None,
) -> Device:
    """The device whose state is kept in `folder`.

    `release` is that of this package, and `root` another place of `/proc` and `/sys` in tests. Raises ProflError where
    something of it cannot be used, such as its data.
    """
    state = StateFolder(folder)
    state.make()
    use = OwnUse()
    return Device(
        settings=settings,
        state=state,
        store=FileStore(state.files, settings.cache_bytes),
        journal=journal,
        permission=Permission(settings.when, settings.quiet_hours, own_seconds=use.seconds, root=root),
        pressure=MemoryPressure(root),
        release=release,
        examples=count_examples(settings.data),
        budget=lambda: budget_bytes(settings.limit_bytes),
        peak=peak_bytes,
        use=use,
        group=group,
        server_key=_server_key(state),
    )


def _server_key(state: StateFolder) -> ServerKey | None:
    try:
        return ServerKey(state.server_key.read_bytes())
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise error.at(str(state.server_key)) from None
