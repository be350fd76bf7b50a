"""A digest inside a safetensors file, of everything in it: bytes that were damaged since are not taken for weights.

The header's metadata hold the SHA-256 of the whole file as it is with zeros in the digest's own place. The training
process imports this module as well, so that it imports next to nothing itself.
"""

from __future__ import annotations

import os
import sys

from device_profiles.errors import DigestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

SEAL_KEY = "profl_sha256"
"""Of the metadata of a file."""
UNSEALED = "0" * 64
"""Stands there before the digest is known."""

_PIECE_BYTES = 1 << 20
_LENGTH_BYTES = 8
_MARK = f'"{SEAL_KEY}":"'.encode()


_makers: list[Any] = []


def new_sha256() -> Any:
    """A SHA-256 without `hashlib`, which would load a library of several megabytes into a process that counts them."""
    loaded = sys.modules.get("hashlib")
    if loaded is not None:
        return loaded.sha256()
    if not _makers:
        _makers.append(_sha256())
    return _makers[0]()


def _sha256() -> Any:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
        except ImportError:
            from hashlib import sha256
    return sha256


def sealed(header: bytes, pieces: Iterable[memoryview[Any]]) -> bytes:
    """The header (its length included), whose metadata hold `UNSEALED`, with the digest of it and of the pieces."""
    digest = new_sha256()
    digest.update(header)
    for piece in pieces:
        digest.update(piece)
    place = _place(header)
    found: str = digest.hexdigest()
    return header[:place] + found.encode() + header[place + len(UNSEALED) :]


def seal(path: str) -> None:
    """Put the digest into a file that another writer made, whose metadata hold `UNSEALED`."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        place = _place(_header(file))
        os.pwrite(file, _digest(file, place).encode(), place)
    finally:
        os.close(file)


def check_seal(path: str, *, remedy: str, required: bool = False) -> None:
    """Raise DigestError where the bytes of `path` are not those that were sealed. Reads pieces of 1 MiB.

    A file without a seal passes unless one is `required`: other programs write weights as well.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = _header(file)
        place = _place(header)
        if place < 0:
            if required:
                raise DigestError(
                    "has no digest, as an earlier release wrote it, or is damaged", place=path, remedy=remedy
                )
            return
        if header[place : place + len(UNSEALED)].decode("latin-1") != _digest(file, place):
            raise DigestError("is damaged: its SHA-256 is not the one it was written with", place=path, remedy=remedy)
    finally:
        os.close(file)


def _header(file: int) -> bytes:
    """Its length and itself, no longer than the file."""
    length = int.from_bytes(os.pread(file, _LENGTH_BYTES, 0), "little")
    return os.pread(file, _LENGTH_BYTES + min(length, os.fstat(file).st_size), 0)


def _place(header: bytes) -> int:
    """Where the digest lies; -1 where there is none."""
    found = header.find(_MARK)
    return found + len(_MARK) if found >= 0 else -1


def _digest(file: int, place: int) -> str:
    """SHA-256 of an open file with zeros at `place`."""
    digest = new_sha256()
    position = 0
    for stop, stand_in in ((place, UNSEALED.encode()), (os.fstat(file).st_size, b"")):
        while position < stop and (piece := os.pread(file, min(_PIECE_BYTES, stop - position), position)):
            digest.update(piece)
            position += len(piece)
        digest.update(stand_in)
        position += len(stand_in)
    found: str = digest.hexdigest()
    return found
