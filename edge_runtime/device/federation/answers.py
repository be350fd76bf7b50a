"""What a device answers: a document, and the files that go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from device_profiles.federation import SentFile

Fetch = Callable[[str, Path, SentFile], None]
"""Writes the file of this name, which an order is about, to a path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An answer: its JSON document, its files by name, and what it is, for the log."""

    document: bytes
    what: str
    files: Mapping[str, Path] = field(default_factory=dict)


class Job(Protocol):
    """Work that takes a while: whoever has it calls `poll` about twice a second until it answers."""

    @property
    def doing(self) -> str:
        """What it is at, for people and for the server."""

    def poll(self) -> Answered | None:
        """Go on; the answer at the end."""

    def stop(self) -> None:
        """End its process, with time for a checkpoint: the same job can be started again."""

    def abandon(self, why: str) -> Answered:
        """End its process at once; nobody waits for its work any more."""
