"""CIFAR-10's binary version: records of one label byte and 3x32x32 pixel bytes."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from device_profiles.errors import DataError
from edge_runtime.device.data.source import Part, RecordFile, Shape, Split, open_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PIXEL_BYTES = 3 * 32 * 32
_RECORD_BYTES = 1 + _PIXEL_BYTES
_FILES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}


class _Joined:
    """Several record files as one."""

    shape: Shape = (3, 32, 32)
    classes = 10

    def __init__(self, parts: list[RecordFile], folder: Path) -> None:
        self._parts = parts
        self.labels = array("q", [label for part in parts for label in part.labels])
        self.labels_origin = self.origin = str(folder)

    def parts(self) -> list[Part]:
        """Where the images lie, file by file."""
        return [place for part in self._parts for place in part.parts()]

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Read image `index` into `out` (uint8 [3, 32, 32])."""
        for part in self._parts:
            if index < len(part.labels):
                return part.read(index, out)
            index -= len(part.labels)
        raise IndexError(index)


def open_cifar10(folder: Path, split: Split) -> _Joined:
    """Open the user's own copy of the binary version (`data_batch_1.bin` ... `test_batch.bin`)."""
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    return _Joined([_open_part(folder / name) for name in _FILES[split]], folder)


def _open_part(path: Path) -> RecordFile:
    if not path.exists():
        raise DataError(f"{path}: no such file; cifar10 needs the binary version (cifar-10-binary.tar.gz)")
    size = path.stat().st_size
    if size == 0 or size % _RECORD_BYTES:
        raise DataError(f"{path}: {size} bytes are not a whole number of records of {_RECORD_BYTES}")
    source = open_file(path)
    # A mapped view would pull nearly every page of the file into memory for one byte of each record.
    labels = array("q", [os.pread(source.fileno(), 1, at)[0] for at in range(0, size, _RECORD_BYTES)])
    offsets = range(1, 1 + size, _RECORD_BYTES)
    return RecordFile(source, offsets, labels, shape=(3, 32, 32), origin=str(path), labels_origin=str(path))
