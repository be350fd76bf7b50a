"""What clients send, read as input from strangers: nothing is taken before its size and type are known, and whatever is
wrong is a FormatError of one plain line."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from device_profiles.errors import FormatError
from device_profiles.seal import check_seal
from device_profiles.update import UpdateMetadata
from device_profiles.wrong_values import explained
from server.averaging.aggregation import ReceivedUpdate
from server.averaging.file_tensors import FileTensors, Place
from server.fleet.structure import TrainedTensor

_HEADER_BYTES = 1 << 16
_HEADER_BYTES_PER_TENSOR = 1 << 10
_MOST_HEADER_BYTES = 1 << 24
_ANSWER_BYTES = 1 << 20
_COMPLAINT_BYTES = 1 << 16
_SHOWN = 200
_FLOAT_BYTES = 4

Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's report must say; more may be in it."""

    loss_first: float | None
    loss_last: float | None
    measured_peak_bytes: Bytes | None


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tensor in a safetensors header."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0, le=1 << 40)], ...]
    data_offsets: tuple[Bytes, Bytes]


def plain(text: str) -> str:
    """`text` of a stranger as it may be printed: on one line, no control characters, cut where it is long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN])
    line = " ".join(line.split())
    return line if len(line) <= _SHOWN and len(text) <= 4 * _SHOWN else f"{line[:_SHOWN]}..."


def read_answer(path: Path) -> Answer:
    """The one JSON object that a client printed."""
    with path.open("rb") as source:
        raw = source.read(_ANSWER_BYTES + 1)
    if len(raw) > _ANSWER_BYTES:
        raise FormatError(f"its report is longer than {_ANSWER_BYTES} bytes")
    try:
        answer = msgspec.json.decode(raw, type=Answer, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"its report: {plain(explained(error, Answer))}") from None
    if not all(loss is None or math.isfinite(loss) for loss in (answer.loss_first, answer.loss_last)):
        raise FormatError("its report: a loss is not a finite number")
    return answer


def last_words(path: Path) -> str:
    """The last line that a client complained with, "" where it said nothing."""
    with path.open("rb") as source:
        source.seek(max(0, source.seek(0, os.SEEK_END) - _COMPLAINT_BYTES))
        lines = source.read(_COMPLAINT_BYTES).decode(errors="replace").strip().split("\n")
    return plain(lines[-1]) if lines else ""


def read_update(client: str, path: Path, expected: Mapping[str, TrainedTensor] | None = None) -> ReceivedUpdate:
    """Check an update that a client wrote; raises FormatError naming the file. Its tensors are read when they are used.

    With `expected`, the tensors that it was asked for, nothing larger than these is read, and no link is followed.
    """
    with _opened(path, follow=expected is None) as file:
        size = os.fstat(file).st_size
        header = _read_header(file, size, path, expected)
        metadata = _metadata(header, path)
        entries = {plain(name): _entry(name, raw, path) for name, raw in header.items() if name != "__metadata__"}
        if expected is not None:
            _check_expected(entries, expected, path)
        first = os.lseek(file, 0, os.SEEK_CUR)
        _check_places(entries, size - first, path)
        check_seal(str(path), remedy="have it trained again")
    places = {name: _place(entry, first) for name, entry in entries.items()}
    return ReceivedUpdate(client=client, metadata=metadata, tensors=FileTensors(path, places))


def most_update_bytes(expected: Mapping[str, TrainedTensor]) -> int:
    """Of a file with these tensors."""
    data = sum(_FLOAT_BYTES * math.prod(tensor.shape) for tensor in expected.values())
    return 8 + _most_header_bytes(expected) + data


def _most_header_bytes(expected: Mapping[str, TrainedTensor]) -> int:
    return _HEADER_BYTES + _HEADER_BYTES_PER_TENSOR * len(expected)


@contextmanager
def _opened(path: Path, *, follow: bool) -> Iterator[int]:
    # O_NONBLOCK: opening a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        file = os.open(path, flags)
    except FileNotFoundError:
        raise FormatError("no update was written", place=str(path)) from None
    except OSError as error:
        raise FormatError(f"{error.strerror or error}", place=str(path)) from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FormatError("is not a regular file", place=str(path))
        yield file
    finally:
        os.close(file)


def _read(file: int, count: int, path: Path) -> bytes:
    pieces, left = [], count
    while left > 0:
        piece = os.read(file, min(left, 1 << 24))
        if not piece:
            raise FormatError(f"ends {left} bytes too early", place=str(path))
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _read_header(
    file: int, size: int, path: Path, expected: Mapping[str, TrainedTensor] | None
) -> dict[str, msgspec.Raw]:
    most = _MOST_HEADER_BYTES
    if expected is not None:
        most = _most_header_bytes(expected)
        if size > most_update_bytes(expected):
            data = most_update_bytes(expected) - most - 8
            raise FormatError(f"has {size} bytes, its tensors {data}", place=str(path))
    if size < 8:
        raise FormatError(f"has {size} bytes and is not a safetensors file", place=str(path))
    length = int.from_bytes(_read(file, 8, path), "little")
    if length > min(most, size - 8):
        raise FormatError(
            f"its header claims {length} bytes; the file is damaged or not a safetensors file", place=str(path)
        )
    try:
        return msgspec.json.decode(_read(file, length, path), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"header: {plain(explained(error, dict))}", place=str(path)) from None


def _metadata(header: Mapping[str, msgspec.Raw], path: Path) -> UpdateMetadata:
    try:
        strings = msgspec.json.decode(header.get("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        metadata = UpdateMetadata.from_strings(strings, str(path))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"metadata: {plain(explained(error, dict))}", place=str(path)) from None
    except FormatError as error:
        raise FormatError(plain(error.reason), place=str(path)) from None
    if not (math.isfinite(metadata.loss_first) and math.isfinite(metadata.loss_last)):
        raise FormatError("metadata: a loss is not a finite number", place=str(path))
    if metadata.steps < 0 or not max(metadata.steps, metadata.examples) < 1 << 53:
        raise FormatError(f"metadata: {plain(str(metadata.steps))} steps cannot be", place=str(path))
    if any(plain(text) != text for text in (metadata.program, metadata.base_version)):
        raise FormatError("metadata: program and base_version must be short names", place=str(path))
    return metadata


def _entry(name: str, raw: msgspec.Raw, path: Path) -> _Entry:
    try:
        entry = msgspec.json.decode(raw, type=_Entry, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"tensor {plain(name)}: {plain(explained(error, _Entry))}", place=str(path)) from None
    if entry.dtype != "F32":
        raise FormatError(f"tensor {plain(name)} has type {plain(entry.dtype)}, not F32 (float32)", place=str(path))
    return entry


def _check_expected(entries: Mapping[str, _Entry], expected: Mapping[str, TrainedTensor], path: Path) -> None:
    odd = sorted(set(entries) ^ set(expected))
    if odd:
        raise FormatError(f"tensor {odd[0]} is missing or not of this block", place=str(path))
    for name, entry in entries.items():
        if entry.shape != expected[name].shape:
            raise FormatError(f"tensor {name} has shape {entry.shape}, not {expected[name].shape}", place=str(path))


def _check_places(entries: Mapping[str, _Entry], size: int, path: Path) -> None:
    """Tensors must lie behind each other and fill the rest of the file."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = entry.data_offsets
        if first != end or last - first != _FLOAT_BYTES * math.prod(entry.shape):
            raise FormatError(f"tensor {name} is not where it should be; the file is damaged", place=str(path))
        end = last
    if end != size:
        raise FormatError(f"has {size} bytes of tensors, its header {end}; it is not whole", place=str(path))


def _place(entry: _Entry, first: int) -> Place:
    return Place(dtype=np.dtype("<f4"), shape=entry.shape, start=first + entry.data_offsets[0])
