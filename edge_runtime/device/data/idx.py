"""IDX files, the format of MNIST and Fashion-MNIST: big-endian magic, extents, bytes."""

from __future__ import annotations

import math
import os
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from device_profiles.errors import DataError
from edge_runtime.device.data.source import RecordFile, Split, open_file, unpacked

if TYPE_CHECKING:
    from edge_runtime.device.data.source import Labels

_UNSIGNED_BYTE = 8
_CHUNK_BYTES = 1 << 18
_PREFIX = {"train": "train", "test": "t10k"}


def open_idx(folder: Path, split: Split, *, package: str | None = None) -> RecordFile:
    """Open `train-*` or `t10k-*` images and labels of `folder`, plain or `.gz`.

    `package` is the Debian package that installs the folder, for the message when it is missing.
    """
    if not folder.is_dir():
        remedy = f"; apt-get install {package}, or name a folder with the IDX files" if package else ""
        raise DataError(f"{folder}: no such folder{remedy}")
    images_path = _find(folder, f"{_PREFIX[split]}-images", "3")
    labels_path = _find(folder, f"{_PREFIX[split]}-labels", "1")
    images = _open(images_path)
    count, height, width = _extents(images, 3, images_path)
    labels = _read_labels(labels_path)
    if len(labels) != count:
        raise DataError(f"{labels_path}: {len(labels)} labels for {count} images in {images_path.name}")
    size = height * width
    return RecordFile(
        images,
        range(16, 16 + count * size, size),
        labels,
        shape=(1, height, width),
        origin=str(images_path),
        labels_origin=str(labels_path),
    )


def _find(folder: Path, stem: str, dimensions: str) -> Path:
    for separator in ("-", "."):
        for ending in ("", ".gz"):
            path = folder / f"{stem}{separator}idx{dimensions}-ubyte{ending}"
            if path.exists():
                return path
    raise DataError(f"{folder}: {stem}-idx{dimensions}-ubyte is missing (plain or .gz)")


def _open(path: Path) -> IO[bytes]:
    source = open_file(path)
    if path.suffix != ".gz":
        return source
    with source:
        return unpacked(_inflate(source, path))


def _inflate(source: IO[bytes], path: Path) -> Iterator[bytes]:
    # zlib alone: the gzip module would bring more of the standard library into a small process.
    stream = zlib.decompressobj(wbits=31)
    try:
        while piece := source.read(_CHUNK_BYTES):
            yield stream.decompress(piece)
        yield stream.flush()
    except zlib.error as error:
        raise DataError(f"{path}: damaged: {error}") from None
    if not stream.eof:
        raise DataError(f"{path}: damaged: ends early")


def _extents(source: IO[bytes], dimensions: int, path: Path) -> tuple[int, ...]:
    header = os.pread(source.fileno(), 4 + 4 * dimensions, 0)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{path}: not an IDX file of bytes with {dimensions} dimensions")
    extents = tuple(int.from_bytes(header[4 + 4 * d : 8 + 4 * d], "big") for d in range(dimensions))
    expected = len(header) + math.prod(extents)
    actual = os.fstat(source.fileno()).st_size
    if actual != expected:
        raise DataError(f"{path}: {actual} bytes, its header describes {expected}")
    if 0 in extents[1:]:
        raise DataError(f"{path}: images without pixels")
    return extents


def _read_labels(path: Path) -> Labels:
    with _open(path) as source:
        (count,) = _extents(source, 1, path)
        return array("q", list(os.pread(source.fileno(), count, 8)))
