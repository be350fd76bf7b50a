"""The folder of a federation: where everything of it lies, who may read it, and that one process at a time runs it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from device_profiles.contract import FORMAT_VERSION
from device_profiles.errors import FormatError, UsageError
from device_profiles.files import atomic_file, read_json, write_json

DEFAULT_PORT = 9092
"""That of Flower's Fleet API in its own documentation."""
_OURS = {"keys", "logs", "flower", "up.lock"}
"""What a start that came no further has left."""
_PRIVATE = 0o077
"""Bits of a mode that nobody but the owner may have."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How devices reach the federation.

    Attributes:
        hosts: The values of --host, of which invitations name the first.
        address: What devices were told the last time that it was up; "" before the first time.
    """

    TITLE = "settings of a federation"

    hosts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("127.0.0.1",)
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = DEFAULT_PORT
    address: str = ""
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class FederationFolder:
    """Paths of a federation; `path` is absolute."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> FederationFolder:
        """That at `path`, which need not exist."""
        return cls(path.resolve())

    @property
    def settings_file(self) -> Path:
        """How devices reach it."""
        return self.path / "settings.json"

    @property
    def keys(self) -> Path:
        """Private keys, certificates and tokens."""
        return self.path / "keys"

    @property
    def database(self) -> Path:
        """The SuperLink's state."""
        return self.path / "superlink.db"

    @property
    def logs(self) -> Path:
        """What the processes of the federation say."""
        return self.path / "logs"

    @property
    def running_file(self) -> Path:
        """Which process runs it now."""
        return self.path / "running.json"

    @property
    def page(self) -> Path:
        """The page that `up` keeps up to date."""
        return self.path / "status.html"

    @property
    def flower_home(self) -> Path:
        """Where Flower keeps what it would else keep in the user's own folder."""
        return self.path / "flower"

    @property
    def exists(self) -> bool:
        """Whether a federation was made here."""
        return self.settings_file.is_file()

    def settings(self) -> Settings:
        """How devices reach it. Raises UsageError where no federation was made here."""
        if not self.exists:
            raise UsageError(
                f"{self.path}: is not the folder of a federation",
                remedy=f"make one with profl-server federation up {self.path}",
            )
        return read_json(self.settings_file, Settings)

    def make(self) -> None:
        """Make what is missing, readable for this user alone. Raises UsageError where the folder is another's."""
        if self.path.is_dir() and not self.exists and not {one.name for one in self.path.iterdir()} <= _OURS:
            raise UsageError(f"{self.path}: holds other files; give the name of a new folder for the federation")
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.path, self.keys, self.logs, self.flower_home):
            folder.mkdir(exist_ok=True, mode=0o700)
            self._check_private(folder)
        for key in self.keys.iterdir():
            self._check_private(key)

    def keep(self, settings: Settings) -> None:
        """Remember how devices reach it."""
        if not self.exists or self.settings() != settings:
            write_json(self.settings_file, settings)

    def _check_private(self, path: Path) -> None:
        if stat.S_IMODE(path.stat().st_mode) & _PRIVATE:
            raise UsageError(f"{path}: others may read it", remedy=f"chmod -R go= {self.path}")

    @contextmanager
    def locked(self, name: str, *, wait: bool, held: str) -> Iterator[None]:
        """Hold the lock `name` of the folder; without `wait`, raise UsageError saying `held` where another has it."""
        with (self.path / f"{name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise UsageError(f"{self.path}: {held}") from None
            yield


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody but this user can read at any time, whole or not at all."""
    before = os.umask(_PRIVATE)
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
    finally:
        os.umask(before)


def read_private(path: Path) -> bytes:
    """The bytes of a key's file. Raises FormatError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(
            f"{path}: {error.strerror or error}", remedy="restore it, or make the federation anew"
        ) from None
