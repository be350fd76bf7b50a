"""What writes npz files without numpy writes what numpy.savez does, to the byte."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_profiles.errors import DataError
from edge_runtime.device.data.npz_writing import type_of, write_arrays, write_members, write_npz


@pytest.mark.parametrize(
    "values",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.arange(6, dtype=np.int64).reshape(3, 2),
        np.arange(300_000, dtype=np.uint32),
        np.array([True, False]),
        np.array(2.5),
        np.zeros((0, 3), np.float64),
        np.arange(8, dtype=np.float16)[::2],
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)).T,
    ],
    ids=lambda values: f"{values.dtype}{list(values.shape)}",
)
def test_an_array_is_written_as_numpy_writes_it(values: NDArray[Any], tmp_path: Path) -> None:
    write_members(tmp_path / "own.npz", {"a": memoryview(values), "b": memoryview(array("q", [7]))})
    np.savez(tmp_path / "numpy.npz", a=np.ascontiguousarray(values).reshape(values.shape), b=np.array([7]))
    assert (tmp_path / "own.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


def test_images_and_inputs_are_written_as_numpy_writes_them(tmp_path: Path) -> None:
    images, labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.array([2, 0, 1])
    write_npz(tmp_path / "own.npz", images, labels.astype(np.int32))
    np.savez(tmp_path / "numpy.npz", images=images, labels=labels)
    assert (tmp_path / "own.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()
    targets = np.ones((3, 2), np.float32)
    write_arrays(tmp_path / "own.npz", images.astype(np.float32), targets)
    np.savez(tmp_path / "numpy.npz", inputs=images.astype(np.float32), labels=targets)
    assert (tmp_path / "own.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


@pytest.mark.parametrize("values", [np.zeros(2, ">f4"), np.zeros(2, "U3"), np.zeros(2, complex), np.zeros(2, object)])
def test_what_holds_no_numbers_of_this_machine_is_refused(values: NDArray[Any], tmp_path: Path) -> None:
    assert type_of(memoryview(values)) is None
    with pytest.raises(DataError, match=r"a\.npz: a holds elements of the type '.+'; give numbers"):
        write_members(tmp_path / "a.npz", {"a": memoryview(values)})
    assert list(tmp_path.iterdir()) == []
