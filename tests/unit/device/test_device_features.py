"""Rows of features: what each type keeps, and what a file that is too short says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from edge_runtime.device import _native


def _through(path: Path, kind: str, features: np.ndarray, indices: list[int] | None = None) -> np.ndarray:
    """Write [examples, channels, values] as rows behind a header of 5 bytes, and read `indices` back."""
    count, channels, values = features.shape
    rows = _native.FeatureRows(kind, channels, values)
    indices = list(range(count)) if indices is None else indices
    out = np.full((len(indices), channels, values), np.nan, np.float32)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        assert rows.write(file, 5, features, count) == 0
        assert os.fstat(file).st_size == 5 + count * rows.row_bytes
        assert rows.read(file, 5, indices, out) == -1
    finally:
        os.close(file)
    return out


def _features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((5, 3, 7)).astype(np.float32)


def test_float32_is_exact_in_any_order(tmp_path: Path) -> None:
    features = _features()
    np.testing.assert_array_equal(
        _through(tmp_path / "rows", "float32", features, [4, 0, 4, 2]), features[[4, 0, 4, 2]]
    )


@given(
    st_numpy.arrays(np.float32, (2, 3, 5), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
)
def test_float16_rounds_as_numpy_does(tmp_path_factory: pytest.TempPathFactory, features: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        expected = features.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(_through(tmp_path_factory.getbasetemp() / "rows", "float16", features), expected)


def test_every_half_comes_back_as_numpys(tmp_path: Path) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    path = tmp_path / "rows"
    path.write_bytes(halves.tobytes())
    out = np.empty((1, 1, 1 << 16), np.float32)
    with path.open("rb") as file:
        assert _native.FeatureRows("float16", 1, 1 << 16).read(file.fileno(), 0, [0], out) == -1
    np.testing.assert_array_equal(out.reshape(-1), halves.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_int8_is_within_half_a_step_of_its_channel(tmp_path: Path, scale: float) -> None:
    features = np.maximum(_features(1), 0) * np.float32(scale)
    found = _through(tmp_path / "rows", "int8", features)
    step = (features.max(axis=2, keepdims=True) - features.min(axis=2, keepdims=True)) / 255
    assert (np.abs(found - features) <= step * 0.501).all()
    lowest = features == features.min(axis=2, keepdims=True)
    np.testing.assert_array_equal(found[lowest], features[lowest])  # what ReLU made zero stays zero


def test_int8_keeps_a_channel_of_one_value(tmp_path: Path) -> None:
    features = np.full((2, 2, 4), 3.25, np.float32)
    np.testing.assert_array_equal(_through(tmp_path / "rows", "int8", features), features)


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_a_row_that_is_cut_off_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows"
    _through(path, kind, _features())
    os.truncate(path, path.stat().st_size - 1)
    out = np.empty((3, 3, 7), np.float32)
    with path.open("rb") as file:
        rows = _native.FeatureRows(kind, 3, 7)  # type: ignore[arg-type]
        assert rows.read(file.fileno(), 5, [0, 4, 1], out) == 4
        with pytest.raises(ValueError, match="too small"):
            rows.read(file.fileno(), 5, [0, 1, 2, 3], out)


def test_a_write_that_fails_returns_its_error(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"")
    with path.open("rb") as file:
        assert _native.FeatureRows("float32", 3, 7).write(file.fileno(), 0, _features(), 5) != 0


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="float8"):
        _native.FeatureRows("float8", 1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 17, 100])
def test_a_number_that_is_none_is_found_anywhere(wrong: float, position: int) -> None:
    values = np.full(101, 3e38, np.float32)
    assert _native.is_finite(values)
    values[position] = wrong
    assert not _native.is_finite(values)
