"""Tensors of a safetensors file as a mapping: each is read when it is asked for, and forgotten with its last use.

They are read, not mapped: pages of a map count to the server's memory, and a file that shrinks under a map ends the
process.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import ExecutionError, FormatError

Change = Callable[[NDArray[Any]], NDArray[Any]]
"""From a tensor to another one of its shape."""
_LENGTH_BYTES = 8
_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a tensor lies: its type, shape, and first byte in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def values(self) -> int:
        """How many it has."""
        return math.prod(self.shape)


class FileTensors(Mapping[str, NDArray[Any]]):
    """Tensors of the file `path`, which stays as it is while they are used."""

    def __init__(self, path: Path, places: Mapping[str, Place]) -> None:
        self.path = path
        self._places = places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Raises FormatError where the file ends before the tensor does."""
        place = self._places[name]
        return self.values_of(name, 0, place.values).reshape(place.shape)

    def place(self, name: str) -> Place:
        """Where a tensor lies, without reading it."""
        return self._places[name]

    def values_of(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Values `start` to `stop` of a tensor, as one row."""
        place = self._places[name]
        size = place.dtype.itemsize
        data = np.empty(min(stop, place.values) - start, place.dtype)
        rest = memoryview(data.view(np.uint8))  # type: ignore[arg-type]  # numpy's arrays are buffers
        position = place.start + start * size
        with self.path.open("rb", buffering=0) as file:
            while rest and (count := os.preadv(file.fileno(), [rest], position)):
                rest, position = rest[count:], position + count
        if rest:
            raise FormatError(f"{self.path}: ends {len(rest)} bytes too early")
        return data


class ChangedTensors(Mapping[str, NDArray[Any]]):
    """Other tensors, some of them changed whenever they are read: what is changed takes no memory until then."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], changes: Mapping[str, Change]) -> None:
        self.unchanged = tensors
        self._changes = changes

    def __iter__(self) -> Iterator[str]:
        return iter(self.unchanged)

    def __len__(self) -> int:
        return len(self.unchanged)

    def __contains__(self, name: object) -> bool:
        return name in self.unchanged

    def __getitem__(self, name: str) -> NDArray[Any]:
        change = self._changes.get(name)
        return self.unchanged[name] if change is None else change(self.unchanged[name])


def shape_of(tensors: Mapping[str, NDArray[Any]], name: str) -> tuple[int, ...]:
    """Of a tensor, which is not read for it where it lies in a file. Changes keep it."""
    while isinstance(tensors, ChangedTensors):
        tensors = tensors.unchanged
    return tensors.place(name).shape if isinstance(tensors, FileTensors) else tensors[name].shape


def values_of(tensors: Mapping[str, NDArray[Any]], name: str, start: int, stop: int) -> NDArray[Any]:
    """Values `start` to `stop` of a tensor as one row, without the rest of it where it lies in a file."""
    if isinstance(tensors, FileTensors):
        return tensors.values_of(name, start, stop)
    return tensors[name].reshape(-1)[start:stop]


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> FileTensors:
    """Write a safetensors file, one tensor in memory at a time, and rename it to its place; returns what was written.

    It is not flushed to the disk: what is written so is of no use after a crash. Raises ExecutionError where the disk
    does not take it, FormatError where a tensor is of a type that no update has.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    places: dict[str, Place] = {}
    end = 0
    names = {np.dtype(code): name for name, code in _TYPES.items()}
    for name in tensors:
        described = tensors.place(name) if isinstance(tensors, FileTensors) else tensors[name]
        dtype, shape = described.dtype, tuple(described.shape)
        if dtype not in names:
            raise FormatError(f"tensor {name} has type {dtype}, not float32")
        places[name] = Place(dtype=dtype, shape=shape, start=end)
        size = places[name].values * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    first = _LENGTH_BYTES + len(text)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
            for name in tensors:
                file.write(np.ascontiguousarray(tensors[name]).data)
        os.replace(temporary, path)
    except OSError as error:
        raise ExecutionError(
            f"{path}: {error.strerror or error}; make room, or choose another folder with -o"
        ) from None
    placed = {
        name: Place(dtype=place.dtype, shape=place.shape, start=first + place.start) for name, place in places.items()
    }
    return FileTensors(path, placed)
