"""`npz:FILE` with float32 `inputs` (or `images`), [n, ...] of the model's own shape, and `labels`: taken as they are.

With `test_inputs` and `test_labels` beside them, these are the test split; without, both splits are the whole file.
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
from numpy.typing import NDArray

from device_profiles.errors import DataError
from device_profiles.files import atomic_file
from edge_runtime.device.data.npz import locate, read_labels
from edge_runtime.device.data.source import Labels, Part, Shape, Split, open_file


class ArraySource:
    """Rows of one float32 array in an open file, read when a batch asks for them."""

    image_shape = None

    def __init__(self, file: IO[bytes], start: int, shape: Shape, labels: Labels, origin: str) -> None:
        self._file = file  # it must stay open
        self._start = start
        self.input_shape = shape[1:]
        self.record_bytes = 4 * math.prod(shape[1:])
        self.origin = self.labels_origin = origin
        self.labels = labels
        self.classes = int(labels.max()) + 1
        self.parts: list[Part] = [(file.fileno(), start, self.record_bytes, len(labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: Sequence[int] | NDArray[np.int64], out_images: NDArray[np.float32]) -> None:
        """Fill `out_images` [n, ...] with the rows `indices` (n of them)."""
        for position, index in enumerate(indices):
            view = out_images[position : position + 1].reshape(-1).data.cast("B")
            if os.preadv(self._file.fileno(), [view], self._start + int(index) * self.record_bytes) != len(view):
                raise DataError(f"{self.origin}: ends inside example {index}")


def write_arrays(path: Path, inputs: NDArray[np.float32], labels: NDArray[Any]) -> None:
    """Write float32 inputs [n, ...] and labels uncompressed, so that they are read by offset."""
    if inputs.dtype != np.float32 or inputs.ndim < 2 or len(inputs) != len(labels):
        raise DataError(f"{path}: inputs must be float32 [n, ...] with one label each")
    with atomic_file(path) as temporary, temporary.open("wb") as output:
        np.savez(output, inputs=inputs, labels=np.asarray(labels, np.int64))


def open_arrays(path: Path, split: Split, input_shape: Shape) -> ArraySource | None:
    """Open one split; None where the file has no array of float32 (it is one of images)."""
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
            if dtype != np.dtype("<f4") or shape[1:] != input_shape:
                wanted = f"float32 of {'x'.join(map(str, input_shape))} for an example"
                raise DataError(f"{path}: {prefix}{name} is {dtype} {list(shape)}, the model takes {wanted}")
            labels = read_labels(archive, f"{prefix}labels", path)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable npz file: {error}") from None
    if len(labels) != shape[0]:
        raise DataError(f"{path}: {len(labels)} labels for {shape[0]} inputs")
    if not len(labels):
        raise DataError(f"{path}: holds no example")
    return ArraySource(file, start, shape, labels, f"{path}: {prefix}{name}")
