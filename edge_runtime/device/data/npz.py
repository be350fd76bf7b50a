"""`npz:FILE`: arrays `images` (uint8, [n, H, W] or [n, C, H, W]) and `labels` ([n]).

`test_images` and `test_labels` beside them are the test split; without them the file has none, because it is one
client's part and was cut before, unless a share is held out (`hold_out.py`). An array `client` (`test_client`) of
whole numbers [n] says whose example each one is.
"""

from __future__ import annotations

import ast
import math
import os
import struct
import sys
import zipfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from device_profiles.errors import DataError
from edge_runtime.device.data.hold_out import HoldOut, of_rows, rows_of, values_of_rows
from edge_runtime.device.data.source import Clients, RecordFile, Split, open_file, unpacked

if TYPE_CHECKING:
    from edge_runtime.device.data.source import Labels, Offsets

NPY_MAGIC = b"\x93NUMPY"
_INTEGERS = {"b1": "B", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}
_FLOATS = {"f4": "f", "f8": "d"}
_RECORDS = "|V"
_NO_NUMBERS = {"O": "Python objects", "U": "text", "S": "text", "V": "records"}
"""By the letter of numpy's type."""
_LONGEST_HEADER = 1 << 16
"""Of an array: numpy's own are some hundred bytes."""
_COLOURS = (1, 3)
_CHUNK_BYTES = 1 << 18
_LOCAL_HEADER_BYTES = 30


def open_npz(path: Path, hold_out: HoldOut | None, split: Split) -> RecordFile:
    """Open one split of an npz file; a compressed `images` array is spooled to a temporary file first."""
    source = open_file(path)
    with readable(path), zipfile.ZipFile(source) as archive:
        prefix = prefix_of(archive, "images", split, path, hold_out)
        images, start, shape = _locate_images(archive, source, f"{prefix}images", path)
        labels = read_labels(archive, f"{prefix}labels", path, shape[0])
        clients = read_clients(archive, prefix, path)
    check_clients(clients, len(labels), path)
    image_shape = shape[1:] if len(shape) == 4 else (1, *shape[1:])
    size = math.prod(image_shape)
    offsets: Offsets = range(start, start + shape[0] * size, size)
    if hold_out is not None:
        rows = rows_of(hold_out, split, labels, path)
        offsets, labels = array("q", (offsets[row] for row in rows)), values_of_rows(labels, rows)
        clients = of_rows(clients, rows)
    return RecordFile(
        images,
        offsets,
        labels,
        shape=image_shape,
        origin=str(path),
        labels_origin=f"{path}: {prefix}labels",
        clients=clients,
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a damaged archive makes of its reader into a DataError of one line that names `path`."""
    try:
        yield
    except DataError:
        raise
    except zipfile.BadZipFile as error:
        remedy = f"write one with numpy.savez({path.name!r}, images=..., labels=...)"
        raise DataError(f"{path}: not a readable npz file: {error}", remedy=remedy) from None
    except Exception as error:  # zipfile, zlib, lzma, bz2, struct and ast all have errors of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable npz file: {reason}") from None


def prefix_of(archive: zipfile.ZipFile, name: str, split: Split, path: Path, hold_out: HoldOut | None) -> str:
    """What stands before the names of the split's arrays; raises DataError where there is no test split, or two."""
    there = f"test_{name}.npy" in archive.namelist()
    if hold_out is not None and there:
        raise DataError(f"{path}: has a test split of its own (test_{name})", remedy="leave ?test= out")
    if split == "train" or hold_out is not None:
        return ""
    if not there:
        raise DataError(
            f"{path}: has no test split",
            remedy=f"add the arrays test_{name} and test_labels, train and evaluate with npz:FILE?test=0.2, which holds"
            " a fifth out, or ask for the training examples (profl-edge eval --split train)",
        )
    return "test_"


def _locate_images(
    archive: zipfile.ZipFile, source: IO[bytes], name: str, path: Path
) -> tuple[IO[bytes], int, tuple[int, ...]]:
    file, start, shape, dtype = locate(archive, source, name, path)
    if len(shape) == 4 and shape[3] == 1 != shape[1]:
        shape = (shape[0], 1, *shape[1:3])  # a single channel is first and last at once
    if len(shape) == 4 and shape[3] in _COLOURS and shape[1] not in _COLOURS:
        raise DataError(
            f"{path}: {name} is {list(shape)}, channels last; save {name}.transpose(0, 3, 1, 2), which is [n, C, H, W]"
        )
    if dtype[1:] != "u1" or len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(
            f"{path}: {name} is {type_name(dtype)} {list(shape)}; expected uint8 [n, H, W] or [n, C, H, W], C order"
        )
    return file, start, shape


def locate(
    archive: zipfile.ZipFile, source: IO[bytes], name: str, path: Path
) -> tuple[IO[bytes], int, tuple[int, ...], str]:
    """The file that holds an array's bytes, where they start, and the array's shape and type (`|u1`).

    A compressed array is spooled to a temporary file.
    """
    info = member_of(archive, name, path)
    with archive.open(info) as member:
        shape, fortran, dtype = _read_npy_header(member)
        header_bytes = member.tell()
        if dtype[1:2] not in ("i", "u", "f"):
            raise _no_numbers(name, dtype, shape, path)
        _check_order(fortran, shape, name, path)
        expected = header_bytes + math.prod(shape) * int(dtype[2:])
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


def type_name(dtype: str) -> str:
    """`<f4` as people write it: float32."""
    kinds = {"f": "float", "i": "int", "u": "uint"}
    if dtype[1:] == "b1":
        return "bool"
    if dtype[1:2] in _NO_NUMBERS:
        return _NO_NUMBERS[dtype[1:2]]
    return f"{kinds[dtype[1]]}{8 * int(dtype[2:])}" if dtype[1] in kinds and dtype[2:].isdigit() else dtype


def _no_numbers(name: str, dtype: str, shape: tuple[int, ...], path: Path) -> DataError:
    """For an array of something else; names of classes become numbers in their alphabetical order."""
    names = dtype[1:2] in ("U", "S") and len(shape) == 1
    remedy = f"save numpy.unique({name}, return_inverse=True)[1]" if names else f"save {name}.astype('int64')"
    known = dtype[1:2] in ("U", "S", "O") and "labels" in name
    return DataError(
        f"{path}: {name} is {type_name(dtype)} {list(shape)}; expected numbers", remedy=remedy if known else None
    )


def _read_npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, str]:
    """Shape, whether it is in Fortran order, and type as numpy writes it: `|u1`, or `_RECORDS`. Raises ValueError."""
    start = member.read(len(NPY_MAGIC) + 2)
    if not start.startswith(NPY_MAGIC) or len(start) < len(NPY_MAGIC) + 2:
        raise ValueError("no array of numpy")
    length = int.from_bytes(member.read(2 if start[-2] == 1 else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError("the header of an array is too long")
    header = ast.literal_eval(member.read(length).decode("latin-1").strip())
    shape, fortran, dtype = (header[field] for field in ("shape", "fortran_order", "descr"))
    if not all(isinstance(extent, int) and extent >= 0 for extent in shape):
        raise ValueError("the shape of an array is not one of whole numbers")
    return tuple(shape), bool(fortran), dtype if isinstance(dtype, str) else _RECORDS


def read_labels(archive: zipfile.ZipFile, name: str, path: Path, examples: int | None = None) -> Labels:
    """Whole numbers [n], of as many `examples` where their number is known; raises DataError where the array is missing
    or something else."""
    shape, dtype, values = read_numbers(archive, name, path, examples)
    if dtype[1:] not in _INTEGERS or len(shape) != 1:
        remedy = f"{name}.argmax(1) of one-hot rows" if len(shape) == 2 else f"{name}.astype('int64')"
        raise DataError(
            f"{path}: {name} is {type_name(dtype)} {list(shape)}; expected whole numbers [n]: save {remedy}"
        )
    try:
        return array("q", values)
    except OverflowError:
        largest = max(values)
        raise DataError(
            f"{path}: {name}: label {largest} (example {values.index(largest)}) is not a class; a negative number"
            " that was saved as unsigned looks like this"
        ) from None


def is_whole(dtype: str) -> bool:
    """Whether numpy's type is one of whole numbers."""
    return dtype[1:] in _INTEGERS


def read_clients(archive: zipfile.ZipFile, prefix: str, path: Path) -> Clients | None:
    """The column `client` or `test_client`, None where there is none; clients are named by their numbers, ascending."""
    present = [name for name in ("client", "test_client") if f"{name}.npy" in archive.namelist()]
    if f"{prefix}client" not in present:
        return None
    columns = {name: read_labels(archive, name, path) for name in present}
    numbers = sorted({number for column in columns.values() for number in column})
    position = {number: index for index, number in enumerate(numbers)}
    ids = array("q", [position[number] for number in columns[f"{prefix}client"]])
    return Clients(ids, tuple(map(str, numbers)))


def check_clients(clients: Clients | None, examples: int, path: Path) -> None:
    """Raise DataError unless there is a client for each example, or no column at all."""
    if clients is not None and len(clients.ids) != examples:
        raise DataError(f"{path}: {len(clients.ids)} clients for {examples} examples")


def read_numbers(
    archive: zipfile.ZipFile, name: str, path: Path, rows: int | None = None
) -> tuple[tuple[int, ...], str, array[Any]]:
    """Shape, numpy's type and the numbers themselves, in C order, of a small array, with as many `rows` where their
    number is known: nothing is read of one with others. Raises DataError or ValueError."""
    info = member_of(archive, name, path)
    with archive.open(info) as member:
        shape, fortran, dtype = _read_npy_header(member)
        code = (_INTEGERS | _FLOATS).get(dtype[1:])
        if code is None:
            raise _no_numbers(name, dtype, shape, path)
        _check_order(fortran, shape, name, path)
        if rows is not None and shape[:1] != (rows,):
            raise DataError(f"{path}: {shape[0] if shape else 1} labels for {rows} examples")
        expected = member.tell() + math.prod(shape) * array(code).itemsize
        if info.file_size != expected:
            raise DataError(f"{path}: {name} holds {info.file_size} bytes, its header describes {expected}")
        values = array(code, member.read())
    if len(values) != math.prod(shape):
        raise DataError(f"{path}: {name} holds {len(values)} numbers, its header describes {math.prod(shape)}")
    if dtype[0] == (">" if sys.byteorder == "little" else "<"):
        values.byteswap()
    return shape, dtype, values


def _check_order(fortran: bool, shape: tuple[int, ...], name: str, path: Path) -> None:
    if fortran and len(shape) > 1:
        raise DataError(f"{path}: {name} is in Fortran order; save numpy.ascontiguousarray({name})")


def member_of(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    """The entry of array `name`; raises DataError where it is missing."""
    try:
        return archive.getinfo(f"{name}.npy")
    except KeyError:
        raise DataError(f"{path}: array '{name}' is missing") from None


def _pieces(member: IO[bytes]) -> Iterator[bytes]:
    while piece := member.read(_CHUNK_BYTES):
        yield piece
