"""Safetensors files, read without copying and written without a second copy in memory.

The format: eight bytes, little-endian, with the header's length; the header, a JSON object of
`name: {dtype, shape, data_offsets}`; then the bytes of the tensors without gaps. The safetensors package would read
a file whole; frozen weights must be mapped and trainable ones read straight into the arena.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import FormatError
from device_profiles.files import atomic_file

_LENGTH_BYTES = 8
_HEADER_LIMIT_BYTES = 100_000_000
_ALIGNMENT_BYTES = 8
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8"), "BF16": np.dtype("<u2")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
Array = NDArray[Any]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class TensorFile:
    """An open safetensors file. Raises FormatError, naming the file and the tensor, where it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror or error}") from None
        self._map: mmap.mmap | None = None
        try:
            self._entries, self.metadata, self._data_start = _read_header(self._file.fileno(), path)
        except BaseException:
            self._file.close()
            raise

    def names(self) -> list[str]:
        """Names of the tensors, in the order of the header."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Element type of a tensor."""
        return _DTYPES[self._entries[name].dtype]

    def check(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Raise FormatError unless `name` is here with `dtype` (numpy's name) and `shape`."""
        entry = self._entries.get(name)
        if entry is None:
            raise FormatError(f"{self.path}: tensor '{name}' is missing")
        if _DTYPES[entry.dtype].name != dtype or entry.shape != shape:
            raise FormatError(
                f"{self.path}: tensor '{name}' is {_DTYPES[entry.dtype].name} {list(entry.shape)}, "
                f"expected {dtype} {list(shape)}"
            )

    def map(self, name: str) -> Array:
        """The tensor as a read-only view of the mapped file: pages are loaded when touched."""
        entry = self._entries[name]
        dtype = _DTYPES[entry.dtype]
        begin, end = entry.data_offsets
        flat = np.frombuffer(self._mapped(), dtype, (end - begin) // dtype.itemsize, self._data_start + begin)
        return flat.reshape(entry.shape)

    def mapping(self) -> Array:
        """The whole mapped file as bytes, [size]."""
        return np.frombuffer(self._mapped(), np.uint8)

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def read_into(self, name: str, target: Array) -> None:
        """Read the tensor into `target` (same dtype and shape, contiguous) without a copy in between."""
        self.check(name, target.dtype.name, target.shape)
        begin, end = self._entries[name].data_offsets
        if begin == end:
            return
        view = target.reshape(-1).data.cast("B")
        position = 0
        while position < end - begin:
            count = os.preadv(self._file.fileno(), [view[position:]], self._data_start + begin + position)
            if count == 0:
                raise FormatError(f"{self.path}: tensor '{name}' ends early")
            position += count

    def close(self) -> None:
        """Close the file; views from `map` stay valid."""
        self._file.close()


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` (float32 or int64) to `path`, whole or not at all, straight from their memory."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # Wider elements first keeps every tensor aligned to its element, as the safetensors package writes them.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    position = 0
    for name in names:
        array = tensors[name]
        code = _CODES.get(array.dtype)
        if code is None:
            raise FormatError(f"{path}: tensor '{name}' has type {array.dtype}, which is not written here")
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % _ALIGNMENT_BYTES)
    with atomic_file(path) as temporary, temporary.open("wb") as output:
        output.write(len(encoded).to_bytes(_LENGTH_BYTES, "little"))
        output.write(encoded)
        for name in names:
            if tensors[name].nbytes:
                output.write(np.ascontiguousarray(tensors[name]).reshape(-1).data.cast("B"))


def _read_header(file: int, path: Path) -> tuple[dict[str, _Entry], dict[str, str], int]:
    size = os.fstat(file).st_size
    prefix = os.pread(file, _LENGTH_BYTES, 0)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _LENGTH_BYTES or length > min(_HEADER_LIMIT_BYTES, size - _LENGTH_BYTES):
        raise FormatError(f"{path}: not a safetensors file: its header does not fit in {size} bytes")
    try:
        raw = msgspec.json.decode(os.pread(file, length, _LENGTH_BYTES), type=dict[str, msgspec.Raw], strict=True)
        metadata = msgspec.json.decode(raw.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        entries = {name: msgspec.json.decode(value, type=_Entry, strict=True) for name, value in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a safetensors file: header: {error}") from None
    _check_entries(entries, size - _LENGTH_BYTES - length, path)
    return entries, metadata, _LENGTH_BYTES + length


def _check_entries(entries: dict[str, _Entry], data_bytes: int, path: Path) -> None:
    expected = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _DTYPES:
            raise FormatError(f"{path}: tensor '{name}' has type {entry.dtype}; only F32, BF16 and I64 are known here")
        count = 1
        for extent in entry.shape:
            if extent < 0:
                raise FormatError(f"{path}: tensor '{name}' has a negative extent")
            count *= extent
        begin, end = entry.data_offsets
        if begin != expected or end - begin != count * _DTYPES[entry.dtype].itemsize:
            raise FormatError(f"{path}: tensor '{name}' has data_offsets [{begin}, {end}] that do not fit its shape")
        expected = end
    if expected != data_bytes:
        raise FormatError(f"{path}: the header describes {expected} bytes of tensors, the file holds {data_bytes}")
