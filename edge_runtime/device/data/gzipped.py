"""Gzip files, piece by piece and member by member, with zlib alone: the gzip module would bring more of the standard
library into a small process."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from device_profiles.errors import DataError

_CHUNK_BYTES = 1 << 16
_GZIP = 31
"""zlib's number for a gzip header and the largest window."""


def inflated(source: IO[bytes], path: Path) -> Iterator[bytes]:
    """The content of an open gzip file in pieces of at most 64 KiB, of all its members one behind the other.

    Raises DataError, naming `path`, where it is damaged or ends early.
    """
    stream, begun = zlib.decompressobj(wbits=_GZIP), False
    try:
        while piece := source.read(_CHUNK_BYTES):
            while piece:
                if stream.eof:
                    # Padding with zeros behind a member is allowed.
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    stream, begun = zlib.decompressobj(wbits=_GZIP), False
                begun = True
                content = stream.decompress(piece, _CHUNK_BYTES)
                if content:
                    yield content
                piece = stream.unused_data if stream.eof else stream.unconsumed_tail
    except zlib.error as error:
        raise DataError(f"{path}: damaged: {error}") from None
    while begun and not stream.eof and (content := _rest(stream, path)):
        yield content
    if not stream.eof:
        raise DataError(f"{path}: damaged: ends early")


def _rest(stream: zlib._Decompress, path: Path) -> bytes:
    try:
        return stream.decompress(b"", _CHUNK_BYTES)
    except zlib.error as error:
        raise DataError(f"{path}: damaged: {error}") from None
