"""`npz` files with arrays of the model's own shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.npz_writing import write_arrays


def _tokens(path: Path, inputs: np.ndarray, labels: np.ndarray | None = None) -> str:
    write_arrays(path, inputs, np.arange(len(inputs)) % 3 if labels is None else labels)
    return f"npz:{path}"


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1,)])
def test_arrays_arrive_as_they_are_in_the_asked_order(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    inputs = np.arange(7 * int(np.prod(shape))).reshape(7, *shape).astype(dtype)
    source = open_data(_tokens(tmp_path / "a.npz", inputs), split="train", input_shape=shape, input_dtype=dtype)  # type: ignore[arg-type]  # parametrised
    out = np.empty((3, *shape), dtype)
    source.fetch([6, 0, 3], out)
    np.testing.assert_array_equal(out, inputs[[6, 0, 3]])
    assert len(source) == 7
    assert source.classes == 3


def test_a_compressed_file_and_a_test_split_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    inputs = np.arange(20).reshape(4, 5)
    np.savez_compressed(
        path, inputs=inputs, labels=np.zeros(4, int), test_inputs=inputs[:1] + 100, test_labels=np.ones(1, int)
    )
    out = np.empty((1, 5), np.int64)
    for split, expected in (("train", inputs[2]), ("test", inputs[0] + 100)):
        source = open_data(f"npz:{path}", split=split, input_shape=(5,), input_dtype="int64")  # type: ignore[arg-type]  # a literal
        source.fetch([2 if split == "train" else 0], out)
        np.testing.assert_array_equal(out[0], expected)


def test_a_token_outside_the_vocabulary_is_found_wherever_it_stands(tmp_path: Path) -> None:
    inputs = np.zeros((40_000, 4), np.int64)
    inputs[39_999, 1] = 8
    source = open_data(_tokens(tmp_path / "a.npz", inputs), split="train", input_shape=(4,), input_dtype="int64")
    source.check_tokens(9)
    with pytest.raises(DataError, match=r"token 8 \(example 39999\) is outside 0..7"):
        source.check_tokens(8)


def test_targets_are_numbers_of_the_models_outputs(tmp_path: Path) -> None:
    inputs, targets = np.zeros((4, 2), np.float32), np.arange(8.0).reshape(4, 2)
    spec = _tokens(tmp_path / "a.npz", inputs, targets)
    source = open_data(spec, split="train", input_shape=(2,), targets=2)
    assert (source.targets, source.labels.typecode) == (2, "f")
    np.testing.assert_array_equal(np.asarray(source.labels).reshape(4, 2), targets)
    one = _tokens(tmp_path / "b.npz", inputs, np.arange(4))
    assert list(open_data(one, split="train", input_shape=(2,), targets=1).labels) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="needs numbers"):
        open_data(spec, split="train", input_shape=(2,), targets=3)


def test_images_are_no_tokens_and_no_targets(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 4, 4), np.uint8), labels=np.zeros(2, int))
    for more in ({"input_dtype": "int64"}, {"targets": 2}):
        with pytest.raises(UsageError, match="npz:FILE"):
            open_data(f"npz:{path}", split="train", input_shape=(4,), **more)  # type: ignore[arg-type]  # parametrised


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.zeros((3, 4), np.int32), "labels": np.zeros(3, int)}, "the model takes int64 of 4"),
        ({"inputs": np.zeros((3, 5), np.int64), "labels": np.zeros(3, int)}, "the model takes int64 of 4"),
        ({"inputs": np.zeros((3, 4), np.int64), "labels": np.zeros(2, int)}, "2 labels for 3 examples"),
        ({"inputs": np.zeros((3, 4), np.int64)}, "'labels' is missing"),
        ({"inputs": np.zeros((0, 4), np.int64), "labels": np.zeros(0, int)}, "holds no example"),
        ({"inputs": np.asfortranarray(np.zeros((3, 4), np.int64)), "labels": np.zeros(3, int)}, "in Fortran order"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # arrays by name
    with pytest.raises(DataError, match=message) as raised:
        open_data(f"npz:{path}", split="train", input_shape=(4,), input_dtype="int64")
    assert str(path) in str(raised.value)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    inputs = np.zeros((100, 4), np.int64)
    spec = _tokens(tmp_path / "a.npz", inputs)
    raw = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"a\.npz"):
        open_data(spec, split="train", input_shape=(4,), input_dtype="int64")
