"""`npz:FILE`: arrays `images` (uint8, [n, H, W] or [n, C, H, W]) and `labels` ([n]).

With `test_images` and `test_labels` beside them, these are the test split; without, both splits are the whole file,
because such a file is one client's part and was cut before.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from device_profiles.errors import DataError
from device_profiles.files import atomic_file
from edge_runtime.device.data.source import RecordFile, Split, open_file, unpacked

_CHUNK_BYTES = 1 << 18
_LOCAL_HEADER_BYTES = 30


def write_npz(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write images ([n, H, W] or [n, C, H, W]) and labels uncompressed, so that `open_npz` reads by offset."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels):
        raise DataError(f"{path}: images must be uint8 [n, H, W] or [n, C, H, W] with one label each")
    with atomic_file(path) as temporary, temporary.open("wb") as output:
        np.savez(output, images=images, labels=np.asarray(labels, np.int64))


def open_npz(path: Path, split: Split) -> RecordFile:
    """Open one split of an npz file; a compressed `images` array is spooled to a temporary file first."""
    source = open_file(path)
    try:
        with zipfile.ZipFile(source) as archive:
            names = set(archive.namelist())
            prefix = "test_" if split == "test" and "test_images.npy" in names else ""
            images, start, shape = _locate_images(archive, source, f"{prefix}images", path)
            labels = read_labels(archive, f"{prefix}labels", path)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable npz file: {error}") from None
    if len(labels) != shape[0]:
        raise DataError(f"{path}: {len(labels)} labels for {shape[0]} images")
    image_shape = shape[1:] if len(shape) == 4 else (1, *shape[1:])
    offsets = start + np.arange(shape[0], dtype=np.int64) * int(np.prod(image_shape))
    return RecordFile(
        images, offsets, labels, shape=image_shape, origin=str(path), labels_origin=f"{path}: {prefix}labels"
    )


def _locate_images(
    archive: zipfile.ZipFile, source: IO[bytes], name: str, path: Path
) -> tuple[IO[bytes], int, tuple[int, ...]]:
    file, start, shape, dtype = locate(archive, source, name, path)
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(f"{path}: {name} is {dtype} {list(shape)}; expected uint8 [n, H, W] or [n, C, H, W], C order")
    return file, start, shape


def locate(
    archive: zipfile.ZipFile, source: IO[bytes], name: str, path: Path
) -> tuple[IO[bytes], int, tuple[int, ...], np.dtype[Any]]:
    """The file that holds an array's bytes, where they start, and the array's shape and type.

    A compressed array is spooled to a temporary file.
    """
    info = member_of(archive, name, path)
    with archive.open(info) as member:
        shape, fortran, dtype = _read_npy_header(member)
        header_bytes = member.tell()
        if fortran or dtype.hasobject:
            raise DataError(f"{path}: {name} is {dtype} {list(shape)}; expected numbers in C order")
        expected = header_bytes + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if info.file_size != expected:
            raise DataError(f"{path}: {name} holds {info.file_size} bytes, its header describes {expected}")
        if info.compress_type != zipfile.ZIP_STORED:
            return unpacked(_pieces(member)), 0, shape, dtype
    # The sizes of the name and extra fields in the local header may differ from those in the directory.
    local = os.pread(source.fileno(), _LOCAL_HEADER_BYTES, info.header_offset)
    name_bytes, extra_bytes = struct.unpack("<HH", local[26:30])
    start = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes + header_bytes
    if os.fstat(source.fileno()).st_size < start + expected - header_bytes:
        raise DataError(f"{path}: ends inside {name}")
    return source, start, shape, dtype


def _read_npy_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(member)


def read_labels(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[np.int64]:
    """Whole numbers [n]; raises DataError where the array is missing or something else."""
    with archive.open(member_of(archive, name, path)) as member:
        labels = npy.read_array(member, allow_pickle=False)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {name} is {labels.dtype} {list(labels.shape)}; expected whole numbers [n]")
    return labels.astype(np.int64)


def member_of(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    """The entry of array `name`; raises DataError where it is missing."""
    try:
        return archive.getinfo(f"{name}.npy")
    except KeyError:
        raise DataError(f"{path}: array '{name}' is missing") from None


def _pieces(member: IO[bytes]) -> Iterator[bytes]:
    while piece := member.read(_CHUNK_BYTES):
        yield piece
