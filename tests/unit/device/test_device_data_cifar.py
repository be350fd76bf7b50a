"""CIFAR-10 and CIFAR-100 in the formats of their binary and Python versions, on files of a few images."""

from __future__ import annotations

import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from device_profiles.errors import DataError
from edge_runtime.device.data import open_data

SHAPE = (3, 32, 32)


class _Python2(pickle._Pickler):
    """Writes text as the byte strings of Python 2, which made the published files."""

    dispatch: ClassVar[dict[type, object]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, text: bytes) -> None:
        self.write(b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    def save_text(self, text: str) -> None:
        self.save_bytes(text.encode("latin-1"))

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text


class _Raw:
    """An array as numpy under Python 2 reduced it: its bytes as they are."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __reduce__(self) -> object:
        make, arguments, state = self._values.__reduce__()
        return make, arguments, (*state[:4], self._values.tobytes())


def _python2(content: dict[str, object]) -> bytes:
    out = BytesIO()
    _Python2(out, protocol=2).dump(content)
    # Since numpy 2 the module has another name.
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def _fetched(spec: str, split: str, indices: list[int]) -> tuple[list[int], int, np.ndarray]:
    source = open_data(spec, split=split, input_shape=SHAPE)  # type: ignore[arg-type]
    out = np.empty((len(indices), *SHAPE), np.float32)
    source.fetch(indices, out)
    return source.labels.tolist(), source.classes, out


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return (pixels.reshape(-1, *SHAPE) / 255 - 0.5) / 0.5


def _batch(pixels: np.ndarray, **labels: list[int]) -> bytes:
    names = [f"image_{number}.png" for number in range(len(pixels))]
    return _python2({"batch_label": "one of several", **labels, "data": _Raw(pixels), "filenames": names})


def test_the_files_here_are_written_as_python_2_did() -> None:
    written = _batch(_pixels(2), labels=[3, 4])
    assert written.startswith(b"\x80\x02}q\x00(U\x0bbatch_labelq")
    np.testing.assert_array_equal(pickle.loads(written, encoding="bytes")[b"data"], _pixels(2))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_cifar10s_python_version_is_read_file_behind_file(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    pixels = _pixels(12)
    for number in range(5):
        part = slice(2 * number, 2 * number + 2)
        (folder / f"data_batch_{number + 1}").write_bytes(_batch(pixels[part], labels=[number, 9 - number]))
    (folder / "test_batch").write_bytes(_batch(pixels[10:], labels=[7, 0]))
    labels, classes, images = _fetched(f"cifar10:{tmp_path}", "train", [9, 0, 3])
    assert labels == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5] and classes == 10
    np.testing.assert_allclose(images, _scaled(pixels[[9, 0, 3]]), atol=1e-6)
    labels, _, images = _fetched(f"cifar10:{tmp_path}", "test", [1])
    assert labels == [7, 0]
    np.testing.assert_allclose(images, _scaled(pixels[[11]]), atol=1e-6)


@pytest.mark.parametrize("inner", ["", "cifar-100-python"])
def test_cifar100s_python_version_gives_the_fine_labels(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    pixels = _pixels(3)
    (folder / "train").write_bytes(_batch(pixels, fine_labels=[99, 0, 49], coarse_labels=[1, 2, 3]))
    labels, classes, images = _fetched(f"cifar100:{tmp_path}", "train", [2, 1])
    assert labels == [99, 0, 49] and classes == 100
    np.testing.assert_allclose(images, _scaled(pixels[[2, 1]]), atol=1e-6)


@pytest.mark.parametrize("inner", ["", "cifar-100-binary"])
def test_cifar100s_binary_version_has_the_coarse_label_before_the_fine_one(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    pixels = _pixels(4)
    records = np.concatenate([np.array([[1, 99], [2, 0], [3, 49], [19, 5]], np.uint8), pixels], axis=1)
    (folder / "train.bin").write_bytes(records.tobytes())
    (folder / "test.bin").write_bytes(records[:1].tobytes())
    labels, classes, images = _fetched(f"cifar100:{tmp_path}", "train", [3, 0])
    assert labels == [99, 0, 49, 5] and classes == 100
    np.testing.assert_allclose(images, _scaled(pixels[[3, 0]]), atol=1e-6)
    assert _fetched(f"cifar100:{tmp_path}", "test", [0])[0] == [99]


def test_cifar10s_binary_version_is_read_from_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = _pixels(2)
    (folder / "test_batch.bin").write_bytes(np.concatenate([[[6], [2]], pixels], axis=1).astype(np.uint8).tobytes())
    labels, _, images = _fetched(f"cifar10:{tmp_path}", "test", [1])
    assert labels == [6, 2]
    np.testing.assert_allclose(images, _scaled(pixels[[1]]), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_batch(_pixels(2), labels=[0, 10]), "label 10 is none of CIFAR-10's 10"),
        (_batch(_pixels(2), labels=[0, -1]), "a label is negative"),
        (_batch(_pixels(2), labels=[0]), r"'data' is \[2, 3072\] for 1 labels"),
        (_batch(_pixels(2), fine_labels=[0, 1]), "not a file of CIFAR-10's Python version"),
        (_batch(_pixels(0), labels=[]), "for 0 labels"),
        (_python2({"data": [1, 2], "labels": [0, 1]}), "'data' is no array"),
        (_batch(_pixels(2), labels=[0, 1])[:-40], "not a readable pickle"),
        (b"", "not a readable pickle"),
    ],
)
def test_a_wrong_python_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=f"test_batch: .*{message}"):
        open_data(f"cifar10:{tmp_path}", split="test", input_shape=SHAPE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes([10]) + bytes(3072), "label 10 is none of CIFAR-10's 10"),
        (bytes(3072), "3072 bytes are not a whole number"),
        (b"", "0 bytes"),
    ],
)
def test_a_wrong_binary_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"test_batch.bin: {message}"):
        open_data(f"cifar10:{tmp_path}", split="test", input_shape=SHAPE)


def test_a_missing_file_names_both_versions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.bin: no such file; unpack the binary or the Python version"):
        open_data(f"cifar100:{tmp_path}", split="train", input_shape=SHAPE)
