"""The state folder of a client: who it is, what it has, and the task that it is at."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.files import atomic_file, read_json, remove_unfinished, write_json
from device_profiles.profile import DeviceProfile
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.fleet_api.incoming import Incoming

_SETTINGS = "settings.json"
_KEPT_RUNS = 32
_KEPT_MESSAGES = 4


class Pending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that was taken and is not answered yet.

    Attributes:
        received: seconds since 1970.
        order: its document as it came, so that it can be checked again; None before it was fetched.
        confirmed: whether all its files are here.
    """

    incoming: Incoming
    received: float
    order: bytes | None = None
    signature: bytes | None = None
    confirmed: bool = False


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer until it has been sent: a SuperLink takes the same one again, and no other.

    Attributes:
        created: seconds since 1970.
        seconds: that the work took.
        what: for the log.
        files: names of its files, which lie in the task's folder.
    """

    document: bytes
    created: float
    seconds: float
    what: str
    files: tuple[str, ...]


class _Taken(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    attempts: dict[str, int] = {}
    messages: tuple[str, ...] = ()


class StateFolder:
    """Everything that a client keeps, in one folder that nobody else may read.

    What is written is there whole or not at all. Folders below `task` are those of one task, and go with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca, self.key, self.server_key = path / "ca.pem", path / "node.key", path / "server.pem"
        self.node = path / "node"
        self.files, self.task, self.prefix = path / "files", path / "task", path / "prefix"
        self._pending, self._answer = path / "pending.json", path / "answer.json"
        self._taken, self._profile = path / "taken.json", path / "profile.json"

    def make(self) -> None:
        """Make the folder, for this user alone."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, without what a killed client was writing: no two clients are the same device. Raises
        UsageError where another one holds it."""
        file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UsageError(
                "another client runs with it",
                field="state_dir",
                value=self.path,
                remedy="end that one, or choose another folder",
            ) from None
        except OSError:
            pass  # a file system without locks
        try:
            remove_unfinished(self.path)
            yield
        finally:
            with suppress(OSError):
                os.close(file)

    def has_settings(self) -> bool:
        """Whether a client was set up here."""
        return (self.path / _SETTINGS).is_file()

    def settings(self) -> Settings:
        """Those of the last start; raises FormatError."""
        return read_json(self.path / _SETTINGS, Settings)

    def write_settings(self, settings: Settings) -> None:
        """Keep them for the next start."""
        write_json(self.path / _SETTINGS, settings)

    def write_secret(self, path: Path, text: str) -> None:
        """Write a file that this user alone may read."""
        with atomic_file(path) as temporary:
            temporary.chmod(0o600)
            temporary.write_text(text)
        path.chmod(0o600)

    def profile(self) -> DeviceProfile | None:
        """Of this device, None before there is one that can be read."""
        with suppress(ProflError):
            return read_json(self._profile, DeviceProfile)
        return None

    def take_profile(self, path: Path) -> DeviceProfile:
        """Keep the profile at `path`; raises FormatError where it is none."""
        profile = read_json(path, DeviceProfile).without_timelines()
        write_json(self._profile, profile)
        return profile

    def pending(self) -> Pending | None:
        """What a killed client was at; None where there is nothing, or nothing that can be read."""
        with suppress(ProflError):
            return read_json(self._pending, Pending)
        return None

    def begin(self, pending: Pending) -> None:
        """Remember a message that was taken, with an empty folder for its task."""
        self.finish()
        self.keep_pending(pending)
        kept = self._kept()
        messages = (*kept.messages, pending.incoming.message_id)[-_KEPT_MESSAGES:]
        write_json(self._taken, msgspec.structs.replace(kept, messages=messages))

    def took(self) -> tuple[str, ...]:
        """The messages that were taken last, by their names, whatever became of them."""
        return self._kept().messages

    def keep_pending(self, pending: Pending) -> None:
        """Remember how far it is."""
        write_json(self._pending, pending)

    def keep_answer(self, answer: KeptAnswer) -> None:
        """Keep the answer to what is pending until it has been sent."""
        write_json(self._answer, answer)

    def answer(self) -> KeptAnswer | None:
        """What is to be sent for what is pending; None where there is none yet."""
        with suppress(ProflError):
            return read_json(self._answer, KeptAnswer)
        return None

    def finish(self) -> None:
        """Forget what was pending, and its files."""
        self._pending.unlink(missing_ok=True)
        self._answer.unlink(missing_ok=True)
        shutil.rmtree(self.task, ignore_errors=True)
        self.task.mkdir(parents=True, exist_ok=True)

    def newest(self, run: str) -> int:
        """The latest attempt of a run that was taken; -1 before there was one."""
        return self._kept().attempts.get(run, -1)

    def take(self, run: str, attempt: int) -> None:
        """Remember the latest attempt of a run, of the latest runs."""
        before = self._kept()
        attempts = {name: number for name, number in before.attempts.items() if name != run}
        kept = dict(list(attempts.items())[1 - _KEPT_RUNS :])
        write_json(self._taken, msgspec.structs.replace(before, attempts={**kept, run: attempt}))

    def _kept(self) -> _Taken:
        with suppress(ProflError):
            return read_json(self._taken, _Taken)
        return _Taken()
