"""IDX files, the format of MNIST and Fashion-MNIST: big-endian magic, extents, bytes."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from device_profiles.errors import DataError
from edge_runtime.device.data.gzipped import inflated
from edge_runtime.device.data.source import RecordFile, Split, open_file, unpacked

if TYPE_CHECKING:
    from edge_runtime.device.data.source import Labels

_UNSIGNED_BYTE = 8
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
    images = _open(images_path, 3)
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


def _open(path: Path, dimensions: int) -> IO[bytes]:
    source = open_file(path)
    if path.suffix != ".gz":
        return source
    with source:
        return unpacked(_as_described(inflated(source, path), dimensions, path))


def _as_described(pieces: Iterator[bytes], dimensions: int, path: Path) -> Iterator[bytes]:
    """`pieces`, up to what the file's own header describes: a small file may unpack to any size."""
    header, held, expected = b"", 0, None
    for piece in pieces:
        if expected is None:
            header += piece
            if len(header) < 4 + 4 * dimensions:
                continue
            piece = header
            extents = _described(header, dimensions, path)
            expected = 4 + 4 * dimensions + math.prod(extents)
        held += len(piece)
        if held > expected:
            raise DataError(f"{path}: unpacks to more than the {expected} bytes that its header describes")
        yield piece
    if expected is None:
        yield header


def _extents(source: IO[bytes], dimensions: int, path: Path) -> tuple[int, ...]:
    header = os.pread(source.fileno(), 4 + 4 * dimensions, 0)
    extents = _described(header, dimensions, path)
    expected = len(header) + math.prod(extents)
    actual = os.fstat(source.fileno()).st_size
    if actual != expected:
        raise DataError(f"{path}: {actual} bytes, its header describes {expected}")
    if 0 in extents[1:]:
        raise DataError(f"{path}: images without pixels")
    return extents


def _described(header: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{path}: not an IDX file of bytes with {dimensions} dimensions")
    return tuple(int.from_bytes(header[4 + 4 * d : 8 + 4 * d], "big") for d in range(dimensions))


def _read_labels(path: Path) -> Labels:
    with _open(path, 1) as source:
        (count,) = _extents(source, 1, path)
        return array("q", list(os.pread(source.fileno(), count, 8)))
