"""What the client needs of its link to the server; `edge_runtime.device.fleet_api.link.Link` is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from device_profiles.errors import FormatError
from device_profiles.federation import SentFile
from edge_runtime.device.federation.answers import Fetch
from edge_runtime.device.fleet_api.errors import LinkError
from edge_runtime.device.fleet_api.incoming import Incoming


class Courier(Protocol):
    """Messages in, files into files, replies out; its methods raise LinkError."""

    @property
    def lost(self) -> LinkError | None:
        """Why the server takes no heartbeat of this device any more."""

    @property
    def answered_in(self) -> float:
        """Seconds that the server's last answer to `pull` took, without an outage before it."""

    def activate(self, deadline: float | None = None) -> int:
        """Be online from now on."""

    def deactivate(self) -> None:
        """Leave; nothing is raised."""

    def close(self) -> None:
        """End the connections."""

    def pull(self, deadline: float | None = None) -> Incoming | None:
        """The next message, each once; None where there is none now."""

    def order(self, incoming: Incoming, deadline: float | None = None) -> tuple[bytes, bytes | None]:
        """The JSON document of a message, and its signature where it has one. Raises FormatError."""

    def files(self, incoming: Incoming, deadline: float | None = None) -> dict[str, str]:
        """Names of its files, and for each what `fetch` needs to know."""

    def fetch(
        self, incoming: Incoming, file: str, path: Path, expected: SentFile, deadline: float | None = None
    ) -> None:
        """Write a file of a message to `path`."""

    def confirm(self, incoming: Incoming, deadline: float | None = None) -> None:
        """Nothing more will be fetched of the message."""

    def reply(
        self,
        incoming: Incoming,
        document: bytes,
        files: Mapping[str, Path],
        *,
        seconds: float,
        created_at: float | None = None,
        deadline: float | None = None,
    ) -> None:
        """Answer a message, once; with `created_at` it is the same answer as before."""

    def refuse(self, incoming: Incoming, reason: str, deadline: float | None = None) -> None:
        """Answer a message that is none of a profl server."""


def fetch_from(courier: Courier, incoming: Incoming) -> Fetch:
    """Fetches files of one message by their names."""
    known: dict[str, str] = {}

    def fetch(name: str, path: Path, expected: SentFile) -> None:
        if not known:
            known.update(courier.files(incoming))
        if name not in known:
            raise FormatError(f"the server's message has no file {name}, which its order names")
        courier.fetch(incoming, known[name], path, expected)

    return fetch
