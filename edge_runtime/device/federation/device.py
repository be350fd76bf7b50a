"""A device as the handlers of orders know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.device.federation.child import OwnUse
from edge_runtime.device.federation.journal import Journal
from edge_runtime.device.federation.permission import Permission
from edge_runtime.device.federation.pressure import MemoryPressure
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.federation.store import FileStore
from edge_runtime.device.fleet_api.keys import ServerKey
from edge_runtime.device.limits.own_group import OwnGroup


@dataclass(frozen=True, kw_only=True)
class Device:
    """What it is and has.

    Attributes:
        release: of this package.
        examples: of its data set.
        budget: bytes that a training may use now.
        peak: bytes that the client's own process was at most.
        use: processor seconds of the client and its child, which are not others'.
        server_key: which every order must be signed with; None where nobody named one.
        group: control group of the client and its child together, where they have one.
    """

    settings: Settings
    state: StateFolder
    store: FileStore
    journal: Journal
    permission: Permission
    pressure: MemoryPressure
    release: str
    examples: int
    budget: Callable[[], int]
    peak: Callable[[], int]
    use: OwnUse
    server_key: ServerKey | None = None
    group: OwnGroup | None = None
