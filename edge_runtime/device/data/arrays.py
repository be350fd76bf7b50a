"""`npz:FILE` with `inputs` (or `images`), [n, ...] of the model's own shape, and `labels`: taken as they are.

Inputs are float32, or int64 for a model of tokens. Labels are whole numbers [n]; for the mean squared error they are
numbers [n] or [n, outputs]. With `test_inputs` and `test_labels` beside them, these are the test split; without, both
splits are the whole file.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from device_profiles.contract import DType
from device_profiles.errors import DataError
from device_profiles.files import atomic_file
from edge_runtime.device.data.npz import locate, member_of, read_labels
from edge_runtime.device.data.source import Part, Shape, Split, open_file

_CHECKED_AT_ONCE = 1 << 16


class ArraySource:
    """Rows of one array in an open file, read when a batch asks for them."""

    image_shape = None

    def __init__(
        self, file: IO[bytes], start: int, shape: Shape, dtype: DType, labels: NDArray[Any], origin: str
    ) -> None:
        self._file = file  # it must stay open
        self._start = start
        self.input_shape = shape[1:]
        self.input_dtype = dtype
        self.record_bytes = np.dtype(dtype).itemsize * math.prod(shape[1:])
        self.origin = self.labels_origin = origin
        self.labels = labels
        self.classes = int(labels.max()) + 1 if labels.dtype == np.int64 else 0
        self.parts: list[Part] = [(file.fileno(), start, self.record_bytes, len(labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: Sequence[int] | NDArray[np.int64], out_images: NDArray[Any]) -> None:
        """Fill `out_images` [n, ...] with the rows `indices` (n of them)."""
        for position, index in enumerate(indices):
            self._read(int(index), out_images[position : position + 1])

    def check_tokens(self, vocabulary: int) -> None:
        """Raise DataError, with the value and its example, for a token outside 0..vocabulary-1."""
        together = max(1, _CHECKED_AT_ONCE // max(1, math.prod(self.input_shape)))
        rows = np.empty((together, *self.input_shape), self.input_dtype)
        for first in range(0, len(self), together):
            part = rows[: min(together, len(self) - first)]
            self._read(first, part)
            wrong = (part < 0) | (part >= vocabulary)
            if wrong.any():
                example = int(wrong.reshape(len(part), -1).any(axis=1).argmax())
                raise DataError(
                    f"{self.origin}: token {int(part[example][wrong[example]][0])} (example {first + example}) is "
                    f"outside 0..{vocabulary - 1}; correct the tokens or the model's embedding"
                )

    def _read(self, index: int, out: NDArray[Any]) -> None:
        view = out.reshape(-1).data.cast("B")
        if os.preadv(self._file.fileno(), [view], self._start + index * self.record_bytes) != len(view):
            raise DataError(f"{self.origin}: ends inside example {index}")


def write_arrays(path: Path, inputs: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write inputs (float32 or int64, [n, ...]) and labels uncompressed, so that they are read by offset."""
    if inputs.dtype not in (np.float32, np.int64) or inputs.ndim < 2 or len(inputs) != len(labels):
        raise DataError(f"{path}: inputs must be float32 or int64 [n, ...] with one label each")
    with atomic_file(path) as temporary, temporary.open("wb") as output:
        np.savez(output, inputs=inputs, labels=labels)


def open_arrays(
    path: Path, split: Split, input_shape: Shape, input_dtype: DType, targets: int | None
) -> ArraySource | None:
    """Open one split; None where the file has images of uint8 only. For `targets` see `open_data`."""
    source = open_file(path)
    try:
        with zipfile.ZipFile(source) as archive:
            names = set(archive.namelist())
            name = "inputs" if "inputs.npy" in names else "images"
            prefix = "test_" if split == "test" and f"test_{name}.npy" in names else ""
            file, start, shape, dtype = locate(archive, source, f"{prefix}{name}", path)
            if name == "images" and dtype.kind != "f":
                source.close()
                return None
            if dtype.name != input_dtype or dtype.byteorder == ">" or shape[1:] != input_shape:
                wanted = f"{input_dtype} of {'x'.join(map(str, input_shape))} for an example"
                raise DataError(f"{path}: {prefix}{name} is {dtype} {list(shape)}, the model takes {wanted}")
            labels = _targets(archive, f"{prefix}labels", path, targets)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable npz file: {error}") from None
    if len(labels) != shape[0]:
        raise DataError(f"{path}: {len(labels)} labels for {shape[0]} inputs")
    if not len(labels):
        raise DataError(f"{path}: holds no example")
    return ArraySource(file, start, shape, input_dtype, labels, f"{path}: {prefix}{name}")


def _targets(archive: zipfile.ZipFile, name: str, path: Path, targets: int | None) -> NDArray[Any]:
    if targets is None:
        return read_labels(archive, name, path)
    with archive.open(member_of(archive, name, path)) as member:
        values: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    if values.dtype.kind not in "fiu" or values.ndim == 0 or values[:1].size not in (targets, 0):
        raise DataError(
            f"{path}: {name} is {values.dtype} {list(values.shape)}; the mean squared error of this model needs "
            f"numbers [n, {targets}]"
        )
    return values.reshape(len(values), targets).astype(np.float32)
