"""One answer on its way: its objects one after the other, of which those of its file go straight into the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_profiles.errors import DigestError, FormatError
from device_profiles.federation import FILE_TYPE, FILES, JSON, ORDER, UPDATE_FILE, SentFile
from device_profiles.outputs import beside
from edge_runtime.device.fleet_api.messages import ConfigRecord, Message
from edge_runtime.device.fleet_api.objects import (
    ARRAY,
    ARRAYS,
    CHUNK_BYTES,
    CONFIG,
    MESSAGE,
    RECORDS,
    Stored,
    chunks_of,
    object_id,
    references,
)
from edge_runtime.device.fleet_api.part import PART, Part
from edge_runtime.device.fleet_api.wire import decode
from server.engines.flower.post import Gone, Grid, Listed
from server.judging.strangers import plain

_DOCUMENT_BYTES = 1 << 24
"""A profile is the longest document: a row for each program of its bundle."""
_PIECE_BYTES = 64 << 10
PATIENCE_SECONDS = 600.0
"""Without another object, after which an answer that has begun is given up. Flower does so after three minutes."""
_NOT_WHOLE = "its answer did not arrive whole"
_ERRORS = {
    3: _NOT_WHOLE,
    4: "its answer came too late",
    5: "went away before it answered",
    7: "has no app of this run",
    8: "its client app died",
}
"""Flower's error codes in the words of this program."""
_ANOTHER_FILE = "unreadable answer: its update is not what it says that it sent"

Steps = Generator[None, None, "Reply"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came back to one letter: a document, with a file where one was wanted, or the reason why there is none."""

    sender: int
    document: bytes = b""
    file: Path | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The update of an answer: where it is written, and what the answer's document says of it.

    `stated` gives None where there is none, and raises FormatError where it is not to be fetched.
    """

    path: Path
    stated: Callable[[bytes], SentFile | None]


class Arriving:
    """The answer of `node` to one message. One thread at a time may look."""

    def __init__(self, grid: Grid, message_id: str, node: int, wanted: Wanted | None = None) -> None:
        self._grid = grid
        self._id = message_id
        self._node = node
        self._wanted = wanted
        self._steps = self._arrive()

    def look(self) -> Reply | None:
        """Fetch what has arrived since the last time; None where that is not all yet. It waits for nothing.

        Raises ExecutionError where the file cannot be written, and what the grid raises.
        """
        try:
            next(self._steps)
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        return None

    def _arrive(self) -> Steps:
        while (listed := self._grid.pull_answer(self._id)) is None or listed.sender != self._node:
            if listed is not None:  # in the place of another, whose own answer is still to come
                self._grid.confirm(listed.object_id)
            yield
        try:
            reply = yield from self._read(listed)
        except Gone:
            reply = Reply(sender=self._node, error=_NOT_WHOLE)
        except FormatError as error:
            reply = Reply(sender=self._node, error=f"unreadable answer: {plain(error.reason)}")
        self._grid.confirm(listed.object_id)
        return reply

    def _read(self, listed: Listed) -> Steps:
        message = yield from self._object(listed.object_id, MESSAGE)
        failure = decode(Message, message.body).error
        if failure is not None:
            said = _ERRORS.get(failure.code) or f"error {failure.code} of its client: {plain(failure.reason)}"
            return Reply(sender=self._node, error=said)
        if len(message.children) != 1:
            raise FormatError("it has no content")
        records = references((yield from self._object(message.children[0], RECORDS)), RECORDS)
        if ORDER not in records:
            raise FormatError("holds no document")
        document = _document((yield from self._object(records[ORDER], CONFIG)))
        if self._wanted is None:
            return Reply(sender=self._node, document=document)
        try:
            stated = self._wanted.stated(document)
        except FormatError as error:
            return Reply(sender=self._node, document=document, error=error.reason)
        if stated is None:
            return Reply(sender=self._node, document=document)
        wrong = yield from self._file(records, self._wanted.path, stated)
        return Reply(sender=self._node, document=document, file=None if wrong else self._wanted.path, error=wrong)

    def _file(self, records: Mapping[str, str], path: Path, stated: SentFile) -> Generator[None, None, str | None]:
        """Write the update; what is wrong with it, None where nothing is."""
        if FILES not in records:
            return _ANOTHER_FILE
        files = references((yield from self._object(records[FILES], ARRAYS)), ARRAYS)
        if UPDATE_FILE not in files:
            return _ANOTHER_FILE
        array, chunks = chunks_of((yield from self._object(files[UPDATE_FILE], ARRAY)))
        if (
            (array.stype, array.shape) != (FILE_TYPE, (stated.bytes,))
            or len(chunks) > 1 + stated.bytes // CHUNK_BYTES  # as Flower cuts it; smaller ones could be any number
        ):
            return _ANOTHER_FILE
        try:
            with Part(path, stated) as part:
                for chunk in chunks:
                    if not part.repeat(chunk):
                        content = yield from self._content(chunk)
                        part.receive(chunk)(len(content), _pieces(content))
                        del content  # before the next one comes
                part.finish()
        except DigestError:
            return "unreadable answer: its update was damaged on the way"
        finally:
            with suppress(FileNotFoundError):
                Path(beside(str(path), PART)).unlink()
        return None

    def _object(self, name: str, kind: str) -> Generator[None, None, Stored]:
        content = yield from self._content(name)
        if object_id(content) != name:
            raise FormatError(f"a {kind} of it has another SHA-256 than its name")
        return Stored.parse(content, kind)

    def _content(self, name: str) -> Generator[None, None, bytes]:
        end = time.monotonic() + PATIENCE_SECONDS
        while (content := self._grid.pull_object(name)) is None:
            if time.monotonic() > end:
                raise Gone(_NOT_WHOLE)
            yield
        return content


def _document(order: Stored) -> bytes:
    values = {item.key: item.value.bytes for item in decode(ConfigRecord, order.body).items if item.value}
    document = values.get(JSON)
    if document is None or len(document) > _DOCUMENT_BYTES:
        raise FormatError("holds no document")
    return document


def _pieces(content: bytes) -> Iterator[memoryview]:
    view = memoryview(content)
    return (view[start : start + _PIECE_BYTES] for start in range(0, len(view), _PIECE_BYTES))
