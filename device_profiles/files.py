"""Strict reading and atomic writing of the vocabulary's files."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from device_profiles.errors import FormatError, UsageError

T = TypeVar("T", bound=msgspec.Struct)
_CHUNK_BYTES = 1 << 20


def read_json(path: Path, kind: type[T]) -> T:
    """Read `path` as one JSON document of `kind`.

    Raises FormatError, naming the file and the field, when it is missing, unreadable, not JSON, has an unknown or
    missing field, a wrong type, or contradicts itself (`kind.check`).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    try:
        value = msgspec.json.decode(raw, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {_other_document(str(error), kind)}{error}") from None
    check = getattr(value, "check", None)
    if check is not None:
        check(str(path))
    return value


def _other_document(message: str, kind: type[msgspec.Struct]) -> str:
    """What to say first where the outermost object lacks a field or has another one: it is some other document."""
    title = getattr(kind, "TITLE", None)
    outermost = message.startswith(("Object ", "Expected `object`")) and " - at " not in message
    return f"is no {title} of this release: " if title is not None and outermost else ""


def to_json(value: Any) -> bytes:
    """`value` as indented JSON that ends with a newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(to_json(value))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the body ends, remove it when it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; put it in its place when the body ends, remove it when it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_output_file(path: Path, *, option: str = "-o") -> None:
    """Raise UsageError, naming the option, where no file can be written at `path`: before the work, not after it."""
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; give the name of a file")
    check_place(path, option=option)


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
def named(path: Path) -> Iterator[None]:
    """Name `path` where the disk does not take it: the system's own error of a full one names no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()
