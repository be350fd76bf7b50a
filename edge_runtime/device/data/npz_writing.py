"""Writing an npz file without numpy, byte for byte as `numpy.savez` writes it: uncompressed, so that it is read by
offset."""

from __future__ import annotations

import sys
import zipfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from device_profiles.errors import DataError
from device_profiles.files import atomic_file
from edge_runtime.device.data.npz import NPY_MAGIC

_KINDS = dict.fromkeys("bhilq", "i") | dict.fromkeys("BHILQ", "u") | dict.fromkeys("efd", "f") | {"?": "b"}
_ORDER = "<" if sys.byteorder == "little" else ">"
_ALIGNMENT_BYTES = 64
_PIECE_BYTES = 1 << 20


def write_npz(path: Path, images: Any, labels: Any) -> None:
    """Write images (uint8, [n, H, W] or [n, C, H, W]) and whole numbers [n], which become int64.

    Both are arrays of numpy, or anything else with a buffer and a shape.
    """
    pixels = memoryview(images)
    if type_of(pixels) != "|u1" or pixels.ndim not in (3, 4) or not _fit(pixels, labels):
        raise DataError(f"{path}: images must be uint8 [n, H, W] or [n, C, H, W] with one label each")
    write_members(path, {"images": pixels, "labels": memoryview(array("q", memoryview(labels).tolist()))})


def write_arrays(path: Path, inputs: Any, labels: Any) -> None:
    """Write inputs (float32 or int64, [n, ...]) and labels, which keep their type."""
    values = memoryview(inputs)
    if type_of(values) not in (f"{_ORDER}f4", f"{_ORDER}i8") or values.ndim < 2 or not _fit(values, labels):
        raise DataError(f"{path}: inputs must be float32 or int64 [n, ...] with one label each")
    write_members(path, {"inputs": values, "labels": memoryview(labels)})


def write_members(path: Path, members: Mapping[str, memoryview[Any]]) -> None:
    """Write arrays of numbers by their names, whole or not at all; raises DataError for what holds no numbers."""
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, values in members.items():
            descr = type_of(values)
            if descr is None:
                raise DataError(f"{path}: {name} holds elements of the type '{values.format}'; give numbers")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(_header(descr, tuple(values.shape or ())))
                _write_elements(member, values)


def type_of(values: memoryview[Any]) -> str | None:
    """The type of a buffer's elements as numpy writes it (`|u1`, `<f4`); None where they are no numbers of this
    machine's byte order."""
    kind = _KINDS.get(values.format.removeprefix("@"))
    if kind is None:
        return None
    return f"{'|' if values.itemsize == 1 else _ORDER}{kind}{values.itemsize}"


def _fit(values: memoryview[Any], labels: Any) -> bool:
    return bool(values.shape) and len(values) == len(labels)


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Version 1 of numpy's format: a literal of Python, padded so that the elements start on a boundary."""
    # numpy leaves room for the first extent to grow to 20 digits.
    room = " " * (20 - len(str(shape[0]))) if shape else ""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}{room}"
    before = len(NPY_MAGIC) + 4
    text += " " * (-(before + len(text) + 1) % _ALIGNMENT_BYTES) + "\n"
    return NPY_MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


def _write_elements(member: IO[bytes], values: memoryview[Any]) -> None:
    if not values.c_contiguous or 0 in (values.shape or ()):
        member.write(values.tobytes())
        return
    octets = values.cast("B")
    for at in range(0, len(octets), _PIECE_BYTES):
        member.write(octets[at : at + _PIECE_BYTES])
