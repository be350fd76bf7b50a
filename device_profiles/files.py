"""Strict reading and atomic writing of the vocabulary's files."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from device_profiles.errors import FormatError, UsageError
from device_profiles.outputs import (
    copy_in_place,
    followed,
    in_place,
    move_over,
    new_file,
    open_in_place,
    sync,
    temporary_name,
)
from device_profiles.wrong_values import explained, is_other_document

T = TypeVar("T", bound=msgspec.Struct)
_CHUNK_BYTES = 1 << 20
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names that `temporary_name` gives."""


def read_json(path: Path, kind: type[T]) -> T:
    """Read `path` as one JSON document of `kind`.

    Raises FormatError, naming the file and the field, when it is missing, unreadable, not JSON, has an unknown or
    missing field, a wrong type, or contradicts itself (`kind.check`).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    return from_json(raw, kind, str(path))


def from_json(raw: bytes, kind: type[T], source: str) -> T:
    """One JSON document of `kind`, which errors call `source`; raises FormatError as `read_json` does."""
    try:
        value = msgspec.json.decode(raw, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        title = getattr(kind, "TITLE", None)
        other = f"is not a {title} of this release: " if title is not None and is_other_document(error) else ""
        raise FormatError(f"{source}: {other}{explained(error, kind)}") from None
    check = getattr(value, "check", None)
    if check is not None:
        check(source)
    return value


def to_json(value: Any) -> bytes:
    """`value` as indented JSON that ends with a newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(to_json(value))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the body ends, remove it when it raises.

    A link is followed, and a device is written as it is (`device_profiles.outputs`). Raises UsageError where `path` can
    be neither, OSError that names it where the disk does not take it.
    """
    if in_place(str(path)):
        with tempfile.TemporaryDirectory(prefix="profl-") as folder:
            yield Path(folder, "output")
            with named(path):
                copy_in_place(os.path.join(folder, "output"), str(path))
        return
    target = followed(str(path))
    temporary = Path(temporary_name(target))
    try:
        with named(path, temporary):
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            os.close(new_file(str(temporary)))
            mode = temporary.stat().st_mode
            yield temporary
            _settle(temporary, mode)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    move_over(str(temporary), target)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers of files in `folder` left. Nobody may be writing there."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)


def _settle(path: Path, mode: int) -> None:
    """Have a finished file on the disk, with the mode that new files of this user have, whoever wrote it."""
    if path.stat().st_mode != mode:
        with suppress(OSError):  # a file system that knows no modes
            path.chmod(stat.S_IMODE(mode))
    with path.open("r+b") as written:
        sync(written.fileno())


def check_output_file(path: Path, *, option: str = "-o") -> None:
    """Raise UsageError, naming the option, where no file can be written at `path`: before the work, not after it."""
    if not in_place(str(path), option=option):
        check_place(Path(followed(str(path))), option=option)
        return
    try:
        os.close(open_in_place(str(path)))
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror}; choose another place") from None


def check_place(path: Path, *, option: str = "-o") -> None:
    """Raise UsageError, naming the option, where the folder of `path` cannot be made or written. Makes nothing."""
    folder = path.parent
    try:
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{option} {path}: cannot be written: {folder}: {reason}; choose another place") from None


@contextmanager
def named(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name `path` where the disk does not take it: the system's own error of a full one names no file.

    With `temporary`, errors that name another file than that one keep it.
    """
    try:
        yield
    except OSError as error:
        if temporary is not None and error.filename is not None and str(error.filename) != str(temporary):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()
