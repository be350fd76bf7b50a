"""`npz:FILE` with `inputs` (or `images`), [n, ...] of the model's own shape, and `labels`: taken as they are.

Inputs are float32, or int64 for a model of tokens. Labels are whole numbers [n]; for the mean squared error they are
numbers [n] or [n, outputs]. `test_inputs` and `test_labels` beside them are the test split; without them the file
has none, unless a share is held out (`hold_out.py`). An array `client` (`test_client`) of whole numbers [n] says whose
example each one is.
"""

from __future__ import annotations

import math
import os
import sys
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from device_profiles.contract import ITEM_BYTES, DType
from device_profiles.errors import DataError
from edge_runtime.device.data.hold_out import HoldOut, of_rows, rows_of, values_of_rows
from edge_runtime.device.data.npz import (
    check_clients,
    is_whole,
    locate,
    prefix_of,
    read_clients,
    read_labels,
    read_numbers,
    readable,
    type_name,
)
from edge_runtime.device.data.source import Clients, Part, Shape, Split, open_file, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHECKED_AT_ONCE = 1 << 16
_FOREIGN = ">" if sys.byteorder == "little" else "<"
_TYPES: dict[DType, str] = {"float32": "f4", "int64": "i8"}


class ArraySource:
    """Rows of one array in an open file, read when a batch asks for them."""

    image_shape = None

    def __init__(
        self,
        file: IO[bytes],
        start: int,
        shape: Shape,
        dtype: DType,
        labels: array[Any],
        targets: int,
        origin: str,
        clients: Clients | None = None,
        rows: array[int] | None = None,
    ) -> None:
        """`rows` of the array, [shape[0], ...], are the examples, which `labels` and `clients` are of; without it
        all."""
        self._file = file  # it must stay open
        self._start = start
        self._rows = range(shape[0]) if rows is None else rows
        self.input_shape = shape[1:]
        self.input_dtype = dtype
        self.record_bytes = ITEM_BYTES[dtype] * math.prod(shape[1:])
        self.origin = self.labels_origin = origin
        self.labels = labels
        self.clients = clients
        self.targets = targets
        self.classes = 0 if targets else max(labels) + 1
        self.parts: list[Part] = [(file.fileno(), start, self.record_bytes, shape[0])]
        if rows is not None:
            self.parts = [(file.fileno(), array("q", (start + row * self.record_bytes for row in rows)).tobytes())]

    def __len__(self) -> int:
        return len(self._rows)

    def fetch(self, indices: Sequence[int] | NDArray[np.int64], out_images: NDArray[Any]) -> None:
        """Fill `out_images` [n, ...] with the rows `indices` (n of them)."""
        for position, index in enumerate(indices):
            self._read(int(index), out_images[position : position + 1])

    def check_tokens(self, vocabulary: int) -> None:
        """Raise DataError, with the value and its example, for a token outside 0..vocabulary-1."""
        size = math.prod(self.input_shape)
        together = max(1, _CHECKED_AT_ONCE // max(1, size)) if isinstance(self._rows, range) else 1
        rows = array("q", bytes(self.record_bytes * together))
        for first in range(0, len(self), together):
            count = min(together, len(self) - first) * size
            part = memoryview(rows)[:count]
            self._read(first, part)
            for token in (min(part), max(part)):
                if not 0 <= token < vocabulary:
                    example = first + part.tolist().index(token) // size
                    raise DataError(
                        f"{self.origin}: token {token} (example {example}) is outside 0..{vocabulary - 1}; "
                        "correct the tokens or the model's embedding"
                    )

    def _read(self, index: int, out: Any) -> None:
        view = memoryview(out).cast("B")
        if os.preadv(self._file.fileno(), [view], self._start + self._rows[index] * self.record_bytes) != len(view):
            raise DataError(f"{self.origin}: ends inside example {index}")


def open_arrays(
    path: Path,
    hold_out: HoldOut | None,
    split: Split,
    wanted: tuple[Shape, DType] | None,
    targets: int | None,
    numbers: bool = True,
) -> ArraySource | None:
    """Open one split; None where the file has images of uint8 only. For `targets` and `numbers` see `open_data`.

    `wanted` is what the model takes as an example; without it, any inputs of a type that some model takes.
    """
    source = open_file(path)
    with readable(path), zipfile.ZipFile(source) as archive:
        name = "inputs" if "inputs.npy" in archive.namelist() else "images"
        prefix = prefix_of(archive, name, split, path, hold_out)
        file, start, shape, dtype = locate(archive, source, f"{prefix}{name}", path)
        if name == "images" and dtype[1] != "f":
            source.close()
            return None
        input_dtype = _check_inputs(shape, dtype, wanted, f"{path}: {prefix}{name}")
        name = f"{prefix}labels"
        if wanted is None and targets is None:
            labels, targets = _labels_as_they_are(archive, name, path, shape[0])
        else:
            labels = _labels(archive, name, path, targets, shape[0], numbers)
        clients = read_clients(archive, prefix, path)
    if not shape[0]:
        raise DataError(f"{path}: holds no example")
    check_clients(clients, shape[0], path)
    if dtype[0] == _FOREIGN:
        file, start = unpacked(_swapped(file, start, math.prod(shape), ITEM_BYTES[input_dtype])), 0
    rows = None
    if hold_out is not None:
        rows = rows_of(hold_out, split, labels, path, targets=targets or 0)
        labels, clients = values_of_rows(labels, rows, targets or 1), of_rows(clients, rows)
    return ArraySource(file, start, shape, input_dtype, labels, targets or 0, f"{path}: {prefix}{name}", clients, rows)


def _swapped(file: IO[bytes], start: int, count: int, item_bytes: int) -> Iterator[bytes]:
    """Numbers of the other byte order in this machine's."""
    end = start + count * item_bytes
    for at in range(start, end, _CHECKED_AT_ONCE):
        piece = array("I" if item_bytes == 4 else "Q", os.pread(file.fileno(), min(_CHECKED_AT_ONCE, end - at), at))
        piece.byteswap()
        yield piece.tobytes()


def _check_inputs(shape: Shape, dtype: str, wanted: tuple[Shape, DType] | None, origin: str) -> DType:
    """The type of an array by its name here; raises DataError where it is not what the model takes."""
    for name, code in _TYPES.items():
        if dtype[1:] == code and wanted in (None, (shape[1:], name)):
            return name
    takes = "float32 or int64" if wanted is None else f"{wanted[1]} of {'x'.join(map(str, wanted[0]))} for an example"
    remedy = ""
    if wanted is not None and wanted[0] == shape[1:]:
        remedy = f"; save it as .astype('{wanted[1]}')"
    elif wanted is not None and wanted[0] == (shape[-1], *shape[1:-1]):
        remedy = "; its channels are last: save numpy.moveaxis(inputs, -1, 1)"
    raise DataError(f"{origin} is {type_name(dtype)} {list(shape)}, the model takes {takes}{remedy}")


def _labels_as_they_are(
    archive: zipfile.ZipFile, name: str, path: Path, examples: int
) -> tuple[array[Any], int | None]:
    """Classes [n], or [n, ...] labels or numbers with how many these are for each example."""
    shape, dtype, values = read_numbers(archive, name, path, examples)
    if len(shape) == 1 and is_whole(dtype):
        return read_labels(archive, name, path, examples), None
    return array("q" if is_whole(dtype) else "f", values), math.prod(shape[1:])


def _labels(
    archive: zipfile.ZipFile, name: str, path: Path, targets: int | None, examples: int, numbers: bool
) -> array[Any]:
    """Whole numbers [n], or `targets` for each example one after the other: float32 `numbers`, or whole ones."""
    if targets is None:
        return read_labels(archive, name, path, examples)
    shape, dtype, values = read_numbers(archive, name, path, examples)
    if not shape or math.prod(shape[1:]) != targets:
        needs = (
            "mean squared error of this model needs numbers"
            if numbers
            else "tokens or pixels of this model need labels"
        )
        raise DataError(f"{path}: {name} is {type_name(dtype)} {list(shape)}; the {needs} [n, {targets}]")
    if not numbers and not is_whole(dtype):
        raise DataError(
            f"{path}: {name} is {type_name(dtype)} {list(shape)}; labels are whole numbers: save {name}.astype('int64')"
        )
    return array("f" if numbers else "q", values)
