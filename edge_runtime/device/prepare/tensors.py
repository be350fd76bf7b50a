"""Headers of safetensors files: what tensors there are, and where their bytes lie.

The format: eight bytes, little-endian, with the header's length; the header, a JSON object of
`name: {dtype, shape, data_offsets}`; then the bytes of the tensors without gaps. The safetensors package would read
a file whole; the training process reads trainable ones straight into the arena.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from device_profiles.errors import FormatError
from device_profiles.seal import SEAL_KEY, check_seal
from device_profiles.weights_file import HEAD_BYTES, check_is_no_other, check_type
from device_profiles.wrong_values import explained

_LENGTH_BYTES = 8
_HEADER_LIMIT_BYTES = 100_000_000
_DTYPES = {"F32": ("float32", 4), "BF16": ("bfloat16", 2), "I64": ("int64", 8)}


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class TensorFile:
    """An open safetensors file. Raises FormatError, naming the file and the tensor, where it is not one.

    Where it holds a digest of itself, as updates do, DigestError is raised for damaged bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror or error}") from None
        try:
            self._entries, self.metadata, self._data_start = _read_header(self._file.fileno(), path)
            if SEAL_KEY in self.metadata:
                check_seal(str(path), remedy="copy it again, or have it written again")
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

    def dtype(self, name: str) -> str:
        """Element type of a tensor, by numpy's name."""
        return _DTYPES[self._entries[name].dtype][0]

    def check(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Raise FormatError unless `name` is here with `dtype` (numpy's name) and `shape`."""
        entry = self._entries.get(name)
        if entry is None:
            raise FormatError(f"{self.path}: tensor '{name}' is missing")
        if _DTYPES[entry.dtype][0] != dtype or entry.shape != shape:
            raise FormatError(
                f"{self.path}: tensor '{name}' is {_DTYPES[entry.dtype][0]} {list(entry.shape)}, "
                f"expected {dtype} {list(shape)}"
            )

    def place(self, name: str) -> tuple[str, int, int]:
        """Where the bytes of a tensor lie: absolute path, offset, size."""
        begin, end = self._entries[name].data_offsets
        return os.path.abspath(self.path), self._data_start + begin, end - begin

    def close(self) -> None:
        """Close the file; what was said of it stays valid."""
        self._file.close()


def _read_header(file: int, path: Path) -> tuple[dict[str, _Entry], dict[str, str], int]:
    size = os.fstat(file).st_size
    prefix = os.pread(file, _LENGTH_BYTES, 0)
    length = int.from_bytes(prefix, "little")
    check_is_no_other(path, os.pread(file, HEAD_BYTES, 0))
    if len(prefix) < _LENGTH_BYTES or length > min(_HEADER_LIMIT_BYTES, size - _LENGTH_BYTES):
        raise FormatError(f"{path}: not a safetensors file: its header does not fit in {size} bytes")
    try:
        raw = msgspec.json.decode(os.pread(file, length, _LENGTH_BYTES), type=dict[str, msgspec.Raw], strict=True)
        metadata = msgspec.json.decode(raw.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        entries = {name: msgspec.json.decode(value, type=_Entry, strict=True) for name, value in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a safetensors file: header: {explained(error, dict)}") from None
    _check_entries(entries, size - _LENGTH_BYTES - length, path)
    return entries, metadata, _LENGTH_BYTES + length


def _check_entries(entries: dict[str, _Entry], data_bytes: int, path: Path) -> None:
    expected = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _DTYPES:
            check_type(path, name, entry.dtype)
            raise FormatError(f"{path}: tensor '{name}' has type {entry.dtype}; only F32, BF16 and I64 are known here")
        count = 1
        for extent in entry.shape:
            if extent < 0:
                raise FormatError(f"{path}: tensor '{name}' has a negative extent")
            count *= extent
        begin, end = entry.data_offsets
        if begin != expected or end - begin != count * _DTYPES[entry.dtype][1]:
            raise FormatError(f"{path}: tensor '{name}' has data_offsets [{begin}, {end}] that do not fit its shape")
        expected = end
    if expected != data_bytes:
        raise FormatError(f"{path}: the header describes {expected} bytes of tensors, the file holds {data_bytes}")
