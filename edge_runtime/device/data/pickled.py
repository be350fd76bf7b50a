"""Arrays of numpy in pickles, read without numpy and without running anything that a pickle names.

Published data sets come as pickles. Loading one with `pickle` alone calls whatever functions the file asks for; here it
may name the few that make up an array, and these are stand-ins.
"""

from __future__ import annotations

import codecs
import math
import pickle
import sys
from array import array
from pathlib import Path
from typing import IO, Any

from device_profiles.errors import DataError

_CODES = {"f4": "f", "f8": "d", "i8": "q", "i4": "i", "u1": "B"}
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, MemoryError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),  # not what the opcodes work on
)


class PickledArray:
    """What a pickle says of one array: `shape`, and its elements in C order unless `fortran`."""

    shape: tuple[int, ...] = ()
    fortran = False

    def __init__(self, *_ignored: object) -> None:
        self._dtype = _Type("", 0, 0)
        self._raw: Any = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self._dtype, self.fortran, self._raw = state

    @property
    def objects(self) -> list[Any]:
        """The elements of an array of objects; raises ValueError for one of numbers."""
        if not isinstance(self._raw, list):
            raise ValueError("an array of numbers where objects are expected")
        return self._raw

    def numbers(self, *codes: str) -> array[Any]:
        """The elements in their order in memory; raises ValueError unless their type is one of numpy's `codes`."""
        code = self._dtype.code
        if code not in codes:
            raise ValueError(f"an array of {code or 'objects'} where {' or '.join(codes)} is expected")
        values = array(_CODES[code], self._raw)
        if len(values) != math.prod(self.shape):
            raise ValueError(f"an array of {len(values)} numbers for the shape {list(self.shape)}")
        if self._dtype.order == (">" if sys.byteorder == "little" else "<"):
            values.byteswap()
        return values

    def octets(self) -> bytes | bytearray:
        """The elements of an array of bytes, without a copy; raises ValueError for another type or length."""
        if self._dtype.code != "u1" or not isinstance(self._raw, bytes | bytearray):
            raise ValueError(f"an array of {self._dtype.code or 'objects'} where u1 is expected")
        if len(self._raw) != math.prod(self.shape):
            raise ValueError(f"an array of {len(self._raw)} bytes for the shape {list(self.shape)}")
        return self._raw


class _Type:
    """numpy's dtype: the code without the byte order, and the byte order."""

    def __init__(self, code: str | bytes, _align: int, _copy: int) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order


def _text_as_bytes(text: str, encoding: str) -> bytes:
    return codecs.encode(text, encoding) if encoding == "latin1" else b""


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> PickledArray:
    """How numpy writes an array with pickle's protocol 5."""
    if not isinstance(dtype, _Type) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("a part of an array is not what it should be")
    made = PickledArray()
    made.__setstate__((1, shape, dtype, order == "F", raw))
    return made


def _scalar(dtype: object, raw: object) -> int:
    """A whole number of numpy's, as in lists of labels."""
    if not isinstance(dtype, _Type) or dtype.code[:1] not in ("i", "u") or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("a number is no whole number")
    order = {"<": "little", ">": "big"}.get(dtype.order, sys.byteorder)
    return int.from_bytes(raw, "big" if order == "big" else "little", signed=dtype.code.startswith("i"))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _text_as_bytes,
    **{(module, "_reconstruct"): PickledArray for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    **{(module, "_frombuffer"): _from_buffer for module in _NUMERIC},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what the pickle names; raises UnpicklingError for anything but parts of arrays."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return _ALLOWED[module, name]


def load_pickle(source: IO[bytes], path: Path) -> Any:
    """The object in an open pickle, Python 2's included, whose strings are then bytes.

    Raises DataError, naming `path`, where it is damaged or asks for anything but arrays and plain values.
    """
    try:
        return _Unpickler(source, encoding="bytes").load()
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable pickle of arrays: {reason}") from None
