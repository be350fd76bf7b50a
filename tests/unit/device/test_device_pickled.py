"""Pickles of numpy's arrays: read without numpy, and nothing in them is called."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError
from edge_runtime.device.data.pickled import PickledArray, load_pickle

PATH = Path("batch")


def _load(content: bytes) -> object:
    return load_pickle(io.BytesIO(content), PATH)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("dtype", "code"), [("<f8", "f8"), (">f8", "f8"), ("<i8", "i8"), (">f4", "f4"), ("u1", "u1")])
def test_an_array_comes_back_whatever_its_type_and_the_protocol(protocol: int, dtype: str, code: str) -> None:
    values = np.arange(6, dtype=dtype).reshape(2, 3)
    read = _load(pickle.dumps({"values": values}, protocol))["values"]  # type: ignore[index]
    assert read.shape == (2, 3) and not read.fortran
    assert read.numbers(code).tolist() == list(range(6))


def test_an_array_in_fortrans_order_says_so_and_keeps_it() -> None:
    read = _load(pickle.dumps(np.asfortranarray(np.arange(6.0).reshape(2, 3)), 2))
    assert isinstance(read, PickledArray)
    assert read.fortran and read.numbers("f8").tolist() == [0, 3, 1, 4, 2, 5]


def test_an_array_of_another_type_is_refused_by_its_reader() -> None:
    read = _load(pickle.dumps(np.arange(3.0), 2))
    assert isinstance(read, PickledArray)
    with pytest.raises(ValueError, match="an array of f8 where u1"):
        read.numbers("u1")
    with pytest.raises(ValueError, match="objects are expected"):
        _ = read.objects


class _Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> object:
        return self._call


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (print, ("called",), "builtins.print"),
        (eval, ("1",), "builtins.eval"),
        (np.load, ("a.npy",), "numpy.*load"),
        (struct.pack, ("<i", 1), "_struct.pack"),
    ],
)
def test_a_function_that_a_pickle_names_is_not_called(
    function: object, arguments: tuple[object, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=f"batch: not a readable pickle of arrays: it names {named}"):
        _load(pickle.dumps(_Calls(function, *arguments)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [0, 1, 10, 50, -1])
def test_a_truncated_pickle_is_refused(keep: int) -> None:
    with pytest.raises(DataError, match="batch: not a readable pickle"):
        _load(pickle.dumps(np.arange(30.0), 2)[:keep])


def test_damaged_pickles_end_in_one_error_or_in_plain_values() -> None:
    whole = pickle.dumps({"values": np.arange(4.0), "labels": [1, 2]}, 2)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 2):
            damaged[place] = random.integers(0, 256)
        try:
            _load(bytes(damaged))
        except DataError:
            refused += 1
    assert refused > 100
