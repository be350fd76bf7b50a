"""An answer that is read piece by piece, for objects that are never in memory as a whole."""

from __future__ import annotations

import enum

from device_profiles.errors import FormatError
from edge_runtime.device.fleet_api.wire import FIXED32_TYPE, FIXED64_TYPE, LENGTH_TYPE, VARINT_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol, TypeAlias

    class Body(Protocol):
        """A part of `http.client.HTTPResponse`."""

        length: int | None

        def readinto(self, buffer: memoryview, /) -> int:
            """The bytes that it has put into `buffer`, none where it is over."""

    Sink: TypeAlias = Callable[[int, Iterator[memoryview]], None]
    """Takes the size of an object and its pieces, of which each is valid until the next one."""

BUFFER_BYTES = 64 << 10
_FOUND, _AVAILABLE, _CONTENT = 1, 2, 3
"""Fields of flwr's PullObjectResponse."""


class Answer(enum.Enum):
    """What became of the request for an object."""

    MISSING = "missing"
    AWAITED = "awaited"
    WHOLE = "whole"


class Source:
    """Bytes of an answer through one small buffer."""

    def __init__(self, body: Body, buffer: bytearray) -> None:
        self._body = body
        self._buffer = memoryview(buffer)
        self._start = self._end = 0

    def at_end(self) -> bool:
        """Whether the answer is over. Raises ConnectionError where it is not, and nothing more comes."""
        if self._start < self._end:
            return False
        self._start, self._end = 0, self._body.readinto(self._buffer)
        if self._end == 0 and self._body.length:
            raise ConnectionError("the connection was cut in the middle of an answer")
        return self._end == 0

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes. Raises FormatError where the answer is over before."""
        while size > 0:
            if self.at_end():
                raise FormatError("an answer ends in the middle of a field")
            piece = self._buffer[self._start : min(self._end, self._start + size)]
            self._start += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Read over `size` bytes."""
        for _ in self.pieces(size):
            pass

    def varint(self) -> int:
        """A number of at most 64 bits. Raises FormatError."""
        value = 0
        for shift in range(0, 70, 7):
            byte = next(self.pieces(1))[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF
        raise FormatError("an answer has a number of more than ten bytes")


def read_object_answer(source: Source, sink: Sink) -> Answer:
    """Read flwr's PullObjectResponse, its content into `sink`. Raises FormatError, and what `sink` raises."""
    flags = {_FOUND: 0, _AVAILABLE: 0}
    filled = False
    while not source.at_end():
        number, wire_type = divmod(source.varint(), 8)
        if wire_type == VARINT_TYPE:
            flags[number] = source.varint()
        elif wire_type == LENGTH_TYPE:
            size = source.varint()
            if number == _CONTENT and size and not filled:
                pieces = source.pieces(size)
                sink(size, pieces)
                filled = True
            else:
                source.skip(size)
        elif wire_type in (FIXED64_TYPE, FIXED32_TYPE):
            source.skip(8 if wire_type == FIXED64_TYPE else 4)
        else:
            raise FormatError(f"an answer has a field of wire type {wire_type}")
    if not flags[_FOUND]:
        return Answer.MISSING
    return Answer.WHOLE if flags[_AVAILABLE] and filled else Answer.AWAITED
