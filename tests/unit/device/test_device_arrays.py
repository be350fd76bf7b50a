"""Data files that hold a model's inputs themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.npz_writing import write_arrays, write_npz


def _inputs(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(16,), (6, 128), (3, 4, 4), (2, 3, 2, 2)])
def test_inputs_of_any_shape_arrive_as_they_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path, inputs = tmp_path / "a.npz", _inputs(5, *shape)
    write_arrays(path, inputs, np.array([0, 1, 2, 0, 1]))
    source = open_data(f"npz:{path}", split="train", input_shape=shape)
    assert len(source) == 5 and source.classes == 3 and source.image_shape is None
    out = np.full((3, *shape), np.nan, np.float32)
    source.fetch([4, 0, 4], out)
    np.testing.assert_array_equal(out, inputs[[4, 0, 4]])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["inputs", "images"])
def test_packed_arrays_and_test_arrays_are_found(tmp_path: Path, save: object, name: str) -> None:
    path = tmp_path / "a.npz"
    arrays = {name: _inputs(4, 7), "labels": np.zeros(4, int), f"test_{name}": _inputs(2, 7), "test_labels": [1, 1]}
    save(path, **arrays)  # type: ignore[operator]
    test = open_data(f"npz:{path}", split="test", input_shape=(7,))
    out = np.empty((2, 7), np.float32)
    test.fetch([0, 1], out)
    np.testing.assert_array_equal(out, arrays[f"test_{name}"])
    assert test.labels.tolist() == [1, 1]
    assert len(open_data(f"npz:{path}", split="train", input_shape=(7,))) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": _inputs(4, 8), "labels": np.zeros(4, int)}, r"inputs is float32 \[4, 8\], the model takes .* of 7"),
        ({"inputs": _inputs(4, 7).astype(float), "labels": np.zeros(4, int)}, "inputs is float64"),
        ({"inputs": _inputs(4, 7), "labels": np.zeros(3, int)}, "3 labels for 4 examples"),
        ({"inputs": _inputs(4, 7), "labels": np.zeros(4)}, "labels is float64"),
        ({"inputs": _inputs(4, 7)}, "array 'labels' is missing"),
        ({"inputs": _inputs(0, 7), "labels": np.zeros(0, int)}, "holds no example"),
        (
            {"inputs": np.asfortranarray(_inputs(4, 7)), "labels": np.zeros(4, int)},
            "in Fortran order; save numpy.ascontiguousarray",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(7,))


def test_images_for_a_model_of_other_inputs_name_the_remedy(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", np.zeros((2, 4, 4), np.uint8), np.array([0, 1]))
    with pytest.raises(DataError, match="npz:FILE with float32 `inputs`"):
        open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(6, 128))


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, _inputs(20, 7), np.zeros(20, np.int64))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(DataError, match=r"a\.npz"):
        open_data(f"npz:{path}", split="train", input_shape=(7,))


def test_only_float32_with_a_label_each_is_written(tmp_path: Path) -> None:
    for inputs, labels in ((np.zeros((2, 3)), [0, 1]), (_inputs(2, 3), [0]), (_inputs(2), [0, 1])):
        with pytest.raises(DataError, match="inputs must be float32"):
            write_arrays(tmp_path / "a.npz", inputs, np.array(labels))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["cat", "dog"] * 2), r"labels is text \[4\]; expected numbers; save numpy\.unique\(labels, return_i"),
        (np.array([0, 1, None, 2], object), r"labels is Python objects \[4\]; expected numbers; save labels\.astype"),
        (np.zeros(4, [("a", "u1"), ("b", "f4")]), r"labels is records \[4\]; expected numbers$"),
    ],
)
def test_labels_that_are_no_numbers_say_what_they_are(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", inputs=_inputs(4, 7), labels=labels)
    with pytest.raises(DataError, match=message):
        open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(7,))


def test_another_file_says_how_an_npz_is_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _inputs(4, 7))
    with pytest.raises(DataError, match=r"not a readable npz file: .*; write one with numpy\.savez\('a\.npy', im"):
        open_data(f"npz:{tmp_path / 'a.npy'}", split="train", input_shape=(7,))
