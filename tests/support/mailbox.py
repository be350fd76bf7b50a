"""A server in a folder: messages and answers are files, so that clients can be killed at any moment.

It hands a message out once, forgets its files when it is confirmed, and takes one answer, as a SuperLink does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from device_profiles.federation import SentFile
from edge_runtime.device.federation.start import main
from edge_runtime.device.fleet_api.errors import KeyRefusedError, LinkDownError, LinkError, MessageGoneError
from edge_runtime.device.fleet_api.incoming import Incoming

T = TypeVar("T", bound=msgspec.Struct)


class Mailbox:
    """The server's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("inbox", "pulled", "outbox", "refused"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._count = len(list(folder.glob("*/*")))

    def send(
        self,
        kind: str,
        document: msgspec.Struct | bytes,
        files: Mapping[str, Path] | None = None,
        *,
        signature: bytes | None = None,
        ttl: float = 600.0,
    ) -> str:
        """Put a message into the inbox; returns its name."""
        self._count += 1
        name = hashlib.sha256(f"{self._count}".encode()).hexdigest()
        making = self.folder / f".{name}"
        (making / "files").mkdir(parents=True)
        raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
        (making / "order").write_bytes(raw)
        if signature is not None:
            (making / "signature").write_bytes(signature)
        listed = {}
        for place, (file, path) in enumerate((files or {}).items()):
            shutil.copyfile(path, making / "files" / str(place))
            listed[file] = str(place)
        (making / "files.json").write_text(json.dumps(listed))
        incoming = Incoming(
            run_id=1, message_id=name, type=kind, created_at=time.time(), ttl=ttl, sender=1, node=2, group=""
        )
        (making / "incoming").write_bytes(msgspec.json.encode(incoming))
        making.rename(self.folder / "inbox" / f"{self._count:06d}-{name}")
        return name

    def answer(self, name: str, kind: type[T], *, seconds: float = 60.0) -> T:
        """The answer to a message, once it has come."""
        self.wait(name, seconds=seconds)
        return msgspec.json.decode((self.folder / "outbox" / name / "document").read_bytes(), type=kind)

    def wait(self, name: str, *, seconds: float = 60.0) -> None:
        """Wait for the answer to a message."""
        end = time.monotonic() + seconds
        while not (self.folder / "outbox" / name).exists():
            assert not (self.folder / "refused" / name).exists(), (self.folder / "refused" / name).read_text()
            assert time.monotonic() < end, "no answer came"
            time.sleep(0.02)

    def answered(self, name: str) -> bool:
        """Whether the answer has come."""
        return (self.folder / "outbox" / name).exists()

    def refusal(self, name: str, *, seconds: float = 60.0) -> str:
        """Why the client refused a message."""
        path = self.folder / "refused" / name
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, "nothing was refused"
            time.sleep(0.02)
        return path.read_text()

    def file(self, name: str, file: str) -> Path:
        """A file of an answer."""
        return self.folder / "outbox" / name / file

    @property
    def fetched(self) -> list[str]:
        """Every file that was fetched, in order."""
        path = self.folder / "fetched"
        return path.read_text().splitlines() if path.exists() else []

    def set_down(self, down: bool) -> None:
        """Cut the link, or mend it."""
        mark = self.folder / "down"
        mark.touch() if down else mark.unlink(missing_ok=True)

    def revoke(self) -> None:
        """The key of the device is known no more."""
        (self.folder / "revoked").touch()


class MailboxCourier:
    """The device's side."""

    answered_in = 0.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def lost(self) -> LinkError | None:
        return KeyRefusedError("the key was revoked") if (self._folder / "revoked").exists() else None

    def activate(self, deadline: float | None = None) -> int:
        self._log("activated")
        return 2

    def deactivate(self) -> None:
        self._log("deactivated")

    def close(self) -> None:
        pass

    def pull(self, deadline: float | None = None) -> Incoming | None:
        self._link(deadline)
        for path in sorted((self._folder / "inbox").iterdir()):
            pulled = self._folder / "pulled" / path.name.partition("-")[2]
            path.rename(pulled)
            return msgspec.json.decode((pulled / "incoming").read_bytes(), type=Incoming)
        return None

    def order(self, incoming: Incoming, deadline: float | None = None) -> tuple[bytes, bytes | None]:
        message = self._message(incoming, deadline)
        signature = message / "signature"
        return (message / "order").read_bytes(), signature.read_bytes() if signature.exists() else None

    def files(self, incoming: Incoming, deadline: float | None = None) -> dict[str, str]:
        known: dict[str, str] = json.loads((self._message(incoming, deadline) / "files.json").read_text())
        return known

    def fetch(
        self, incoming: Incoming, file: str, path: Path, expected: SentFile, deadline: float | None = None
    ) -> None:
        source = self._message(incoming, deadline) / "files" / file
        if (self._folder / "full").exists():
            raise OSError(28, "No space left on device", str(path))
        shutil.copyfile(source, path)
        with (self._folder / "fetched").open("a") as log:
            log.write(f"{expected.sha256}\n")

    def confirm(self, incoming: Incoming, deadline: float | None = None) -> None:
        self._link(deadline)
        (self._folder / "pulled" / incoming.message_id / "confirmed").touch()

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
        self._link(deadline)
        if incoming.expired:
            raise MessageGoneError("the message has expired")
        making = self._folder / f".{incoming.message_id}-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        (making / "document").write_bytes(document)
        for name, path in files.items():
            shutil.copyfile(path, making / name)
        place = self._folder / "outbox" / incoming.message_id
        if place.exists():
            raise MessageGoneError("it was answered before")
        making.rename(place)

    def refuse(self, incoming: Incoming, reason: str, deadline: float | None = None) -> None:
        (self._folder / "refused" / incoming.message_id).write_text(reason)

    def _message(self, incoming: Incoming, deadline: float | None) -> Path:
        self._link(deadline)
        path = self._folder / "pulled" / incoming.message_id
        if not path.exists() or (path / "confirmed").exists() or incoming.expired:
            raise MessageGoneError("the message is kept no more")
        return path

    def _link(self, deadline: float | None) -> None:
        """Wait while the link is down."""
        while (self._folder / "down").exists():
            if deadline is not None and time.monotonic() >= deadline:
                raise LinkDownError("the link is down")
            time.sleep(0.02)

    def _log(self, line: str) -> None:
        with (self._folder / "log").open("a") as log:
            log.write(f"{line}\n")


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    with open(sys.argv[1], "rb") as source:
        sys.exit(main(os.dup(source.fileno()), lambda start, state, journal, stop: MailboxCourier(folder)))
