"""What a client is told once and keeps in its state folder."""

from __future__ import annotations

import msgspec

from device_profiles.invitation import Address, Name
from edge_runtime.device.federation.permission import Condition

MAX_DOWNLOAD_BYTES = 1 << 30
CACHE_BYTES = 1 << 30


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device in a federation.

    Attributes:
        name: what it calls itself.
        address: of the SuperLink, `host:port`.
        data: its data set, as `profl-edge train --data` takes it.
        limit_bytes: hard limit of the client and its training together.
        threads: of a training, at most; None leaves it to the task.
        niceness: of the client and its training; None leaves it to who starts the client.
        when: conditions that must hold while it trains.
        quiet_hours: hours in which it must not.
        invited: whether the federation's server chose the name, so that tasks for another one are not taken.
        insecure: whether the SuperLink is spoken to without TLS, on this machine alone.
        max_download_bytes: of one task.
        cache_bytes: of files that are kept for later tasks.
    """

    name: Name
    address: Address
    data: str
    limit_bytes: int
    threads: int | None = None
    niceness: int | None = None
    when: tuple[Condition, ...] = ()
    quiet_hours: str | None = None
    invited: bool = False
    insecure: bool = False
    max_download_bytes: int = MAX_DOWNLOAD_BYTES
    cache_bytes: int = CACHE_BYTES
