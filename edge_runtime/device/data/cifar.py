"""`cifar10:DIR` and `cifar100:DIR`: the user's own copy of the binary or the Python version (Krizhevsky, 2009).

Both hold images as three planes of 32x32 bytes. The binary version has a record of label and image for each example,
CIFAR-100's with the coarse label before the fine one; the Python version has pickles of one array and a list of labels.
The labels of CIFAR-100 are the fine ones.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from device_profiles.errors import DataError
from edge_runtime.device.data.pickled import PickledArray, load_pickle
from edge_runtime.device.data.source import Clients, Part, RecordFile, Shape, Split, open_file, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.device.data.source import Labels

_SHAPE: Shape = (3, 32, 32)
_PIXEL_BYTES = 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


class _Format(NamedTuple):
    """One of the two data sets; `label_bytes` stand before an image of the binary version, the wanted label last."""

    title: str
    classes: int
    files: dict[Split, tuple[str, ...]]
    label_bytes: int
    labels_key: bytes
    folders: tuple[str, str]


_FORMATS = {
    "cifar10": _Format(
        title="CIFAR-10",
        classes=10,
        files={"train": _BATCHES, "test": ("test_batch",)},
        label_bytes=1,
        labels_key=b"labels",
        folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    ),
    "cifar100": _Format(
        title="CIFAR-100",
        classes=100,
        files={"train": ("train",), "test": ("test",)},
        label_bytes=2,
        labels_key=b"fine_labels",
        folders=("cifar-100-binary", "cifar-100-python"),
    ),
}


class _Joined:
    """Several files as one data set."""

    shape = _SHAPE
    clients: Clients | None = None

    def __init__(self, parts: list[RecordFile], folder: Path, classes: int) -> None:
        self._parts = parts
        self.classes = classes
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


def open_cifar(name: str, folder: Path, split: Split) -> _Joined:
    """Open `cifar10` or `cifar100` in its folder or the one around it, whichever version is there."""
    form = _FORMATS[name]
    folder = next((folder / inner for inner in form.folders if (folder / inner).is_dir()), folder)
    wanted = form.files[split]
    if (folder / wanted[0]).is_file():
        parts = [_open_pickle(folder / file, form) for file in wanted]
    else:
        parts = [_open_records(folder / f"{file}.bin", form) for file in wanted]
    for part in parts:
        if max(part.labels) >= form.classes:
            raise DataError(f"{part.origin}: label {max(part.labels)} is none of {form.title}'s {form.classes}")
    return _Joined(parts, folder, form.classes)


def _open_records(path: Path, form: _Format) -> RecordFile:
    if not path.exists():
        raise DataError(f"{path}: no such file; unpack the binary or the Python version of {form.title} there")
    size, record = path.stat().st_size, form.label_bytes + _PIXEL_BYTES
    if size == 0 or size % record:
        raise DataError(f"{path}: {size} bytes are not a whole number of {form.title}'s records of {record}")
    source = open_file(path)
    # A mapped view would pull nearly every page of the file into memory for one byte of each record.
    places = range(form.label_bytes - 1, size, record)
    labels = array("q", [os.pread(source.fileno(), 1, at)[0] for at in places])
    offsets = range(form.label_bytes, form.label_bytes + size, record)
    return RecordFile(source, offsets, labels, shape=_SHAPE, origin=str(path), labels_origin=str(path))


def _open_pickle(path: Path, form: _Format) -> RecordFile:
    with open_file(path) as source:
        content = load_pickle(source, path)
    try:
        pixels, labels = _understood(content, form)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: not a file of {form.title}'s Python version: {error}") from None
    offsets = range(0, len(pixels), _PIXEL_BYTES)
    return RecordFile(unpacked([pixels]), offsets, labels, shape=_SHAPE, origin=str(path), labels_origin=str(path))


def _understood(content: object, form: _Format) -> tuple[bytes | bytearray, Labels]:
    if not isinstance(content, dict):
        raise TypeError("it holds no dictionary")
    # Python 2 wrote the keys as bytes, Python 3 writes them as text.
    named = {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
    for key in (b"data", form.labels_key):
        if key not in named:
            raise KeyError(f"it has no {key.decode()}")
    data, labels = named[b"data"], named[form.labels_key]
    if isinstance(labels, PickledArray):
        labels = labels.numbers("i8", "i4", "u1").tolist()
    if not isinstance(data, PickledArray) or not isinstance(labels, list):
        raise TypeError("'data' is no array, or the labels are no list")
    pixels = data.octets()
    if data.shape != (len(labels), _PIXEL_BYTES) or data.fortran or not labels:
        raise ValueError(f"'data' is {list(data.shape)} for {len(labels)} labels")
    numbers = array("q", labels)
    if min(numbers) < 0:
        raise ValueError("a label is negative")
    return pixels, numbers
