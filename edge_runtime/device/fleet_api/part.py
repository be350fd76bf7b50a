"""A file in the making: whole chunks of it, each checked against its name, beside the place where it will be."""

from __future__ import annotations

import hashlib
import os

from device_profiles.errors import DigestError, ExecutionError, FormatError
from device_profiles.outputs import beside, move_over, sync
from edge_runtime.device.fleet_api.objects import CHUNK, CHUNK_BYTES, MAX_CHUNK_HEAD_BYTES, head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from device_profiles.federation import SentFile
    from edge_runtime.device.fleet_api.source import Sink

PART = ".part"
_PIECE_BYTES = 64 << 10


class Part:
    """Opened, it holds whole chunks from its start; what follows them is cut off when it is closed after a failure."""

    def __init__(self, path: Path, expected: SentFile) -> None:
        self._path = path
        self._expected = expected
        self._name = beside(str(path), PART)
        self._file = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._whole = hashlib.sha256()
        self._size = 0
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is not None and issubclass(kind, FormatError):
                os.unlink(self._name)  # of another file than the one that is wanted
            elif kind is not None:
                os.ftruncate(self._file, self._size)
        finally:
            os.close(self._file)

    def keep(self, chunks: tuple[str, ...]) -> int:
        """Keep those first chunks that an earlier attempt left; how many they are."""
        there = os.fstat(self._file).st_size
        kept = 0
        for chunk in chunks:
            size = min(CHUNK_BYTES, self._expected.bytes - self._size)
            if self._size + size > there or not self._append(chunk, size, self._pieces(self._size, size)):
                break
            kept += 1
        os.ftruncate(self._file, self._size)
        return kept

    def repeat(self, chunk: str) -> bool:
        """Append a chunk that is in the file already, at another place; False where it is not."""
        if chunk not in self._places:
            return False
        place, size = self._places[chunk]
        return self._append(chunk, size, self._pieces(place, size))

    def receive(self, chunk: str) -> Sink:
        """Appends the chunk, which may be sent again from its start after each failure of the connection.

        The sink raises FormatError where it is no chunk or a longer one than the file may have, DigestError where it
        is another one, ExecutionError where it cannot be written.
        """
        whole, start = self._whole, self._size

        def sink(size: int, pieces: Iterator[memoryview]) -> None:
            self._whole, self._size = whole, start
            digest = hashlib.sha256()
            size, rest = _without_head(size, pieces, digest.update)
            if not self._append(chunk, size, rest, digest):
                raise DigestError(f"{self._path}: a chunk of it has another SHA-256 than its name")

        return sink

    def _pieces(self, place: int, size: int) -> Iterator[bytes]:
        for start in range(place, place + size, _PIECE_BYTES):
            yield os.pread(self._file, min(_PIECE_BYTES, place + size - start), start)

    def _append(
        self, chunk: str, size: int, pieces: Iterator[bytes] | Iterator[memoryview], digest: hashlib._Hash | None = None
    ) -> bool:
        if self._size + size > self._expected.bytes:
            raise FormatError(
                f"{self._path}: the message's file is larger than the {self._expected.bytes} bytes stated"
            )
        start = self._size
        digest = hashlib.sha256(head(CHUNK, (), size)) if digest is None else digest
        whole = self._whole.copy()
        place = start
        for piece in pieces:
            digest.update(piece)
            whole.update(piece)
            self._write(piece, place)
            place += len(piece)
        if digest.hexdigest() != chunk:
            return False
        self._places[chunk] = (start, size)
        self._whole, self._size = whole, place
        return True

    def _write(self, piece: bytes | memoryview, place: int) -> None:
        try:
            while piece:
                written = os.pwrite(self._file, piece, place)
                piece, place = piece[written:], place + written
        except OSError as error:
            raise ExecutionError(f"{self._path}: cannot be written: {error.strerror or error}") from None

    def finish(self) -> None:
        """Give the file its name. Raises DigestError where it is another one than expected."""
        if self._size != self._expected.bytes or self._whole.hexdigest() != self._expected.sha256:
            raise DigestError(f"{self._path}: the message's file has another size or SHA-256 than stated")
        sync(self._file)
        move_over(self._name, str(self._path))


def _without_head(
    size: int, pieces: Iterator[memoryview], hashed: Callable[[bytes], None]
) -> tuple[int, Iterator[memoryview]]:
    """The bytes of a chunk's object without what stands in front of them, which is hashed."""
    first = bytearray()
    for piece in pieces:
        first += piece
        if b"\0" in first or len(first) > MAX_CHUNK_HEAD_BYTES:
            break
    start = first.find(b"\0") + 1
    size -= start
    if not 0 < start <= MAX_CHUNK_HEAD_BYTES or first[:start] != head(CHUNK, (), size):
        raise FormatError(f"an object of the message is no {CHUNK}")
    hashed(bytes(first[:start]))

    def rest() -> Iterator[memoryview]:
        yield memoryview(first)[start:]
        yield from pieces

    return size, rest()
