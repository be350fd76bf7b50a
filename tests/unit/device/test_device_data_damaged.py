"""Whatever is done to a file of data: the reader says in one line what is wrong with it, or reads examples of bytes.

Every format and every damage go through the same test; a new reader needs a line in `_SETS`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.source import sample

_COUNT = 12
_DAMAGES = 40
_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.integers(0, 256, (_COUNT, 6, 6), np.uint8)
_COLOURS = _RANDOM.integers(0, 256, (_COUNT, 3, 32, 32), np.uint8)
_LABELS = np.arange(_COUNT) % 3


def _idx(array: np.ndarray) -> bytes:
    extents = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    return bytes((0, 0, 8, array.ndim)) + extents + array.astype(np.uint8).tobytes()


def _write_idx(folder: Path, pack: Callable[[bytes], bytes], ending: str) -> str:
    for name, array in (("images-idx3", _IMAGES), ("labels-idx1", _LABELS)):
        (folder / f"train-{name}-ubyte{ending}").write_bytes(pack(_idx(array)))
    return f"idx:{folder}"


def _write_npz(folder: Path, compression: int, name: str, values: np.ndarray) -> str:
    with zipfile.ZipFile(folder / "a.npz", "w", compression) as archive:
        for member, array in ((name, values), ("labels", _LABELS)):
            with archive.open(f"{member}.npy", "w") as file:
                np.lib.format.write_array(file, array)
    return f"npz:{folder / 'a.npz'}"


def _write_images(folder: Path, ending: str) -> str:
    pillow = pytest.importorskip("PIL.Image", reason="writes images: pip install pillow")
    for index, image in enumerate(_IMAGES):
        (folder / str(index % 3)).mkdir(exist_ok=True)
        if ending == "pgm":
            (folder / str(index % 3) / f"{index}.pgm").write_bytes(b"P5\n6 6\n255\n" + image.tobytes())
        else:
            pillow.fromarray(image).save(folder / str(index % 3) / f"{index}.{ending}")
    return f"images:{folder}"


def _write_cifar(folder: Path, python: bool) -> str:
    for number in range(1, 6):
        flat = _COLOURS.reshape(_COUNT, -1)
        if python:
            content = {b"data": flat, b"labels": _LABELS.tolist()}
            (folder / f"data_batch_{number}").write_bytes(pickle.dumps(content, protocol=2))
        else:
            records = np.concatenate([_LABELS[:, None].astype(np.uint8), flat], 1)
            (folder / f"data_batch_{number}.bin").write_bytes(records.tobytes())
    return f"cifar10:{folder}"


_FLOATS = _RANDOM.standard_normal((_COUNT, 1, 6, 6)).astype(np.float32)
_SETS: dict[str, Callable[[Path], str]] = {
    "idx": lambda folder: _write_idx(folder, bytes, ""),
    "idx gzip": lambda folder: _write_idx(folder, gzip.compress, ".gz"),
    "npz stored": lambda folder: _write_npz(folder, zipfile.ZIP_STORED, "images", _IMAGES),
    "npz deflated": lambda folder: _write_npz(folder, zipfile.ZIP_DEFLATED, "images", _IMAGES),
    "npz bzip2": lambda folder: _write_npz(folder, zipfile.ZIP_BZIP2, "images", _IMAGES),
    "npz lzma": lambda folder: _write_npz(folder, zipfile.ZIP_LZMA, "images", _IMAGES),
    "npz inputs": lambda folder: _write_npz(folder, zipfile.ZIP_STORED, "inputs", _FLOATS),
    "images pgm": lambda folder: _write_images(folder, "pgm"),
    "images png": lambda folder: _write_images(folder, "png"),
    "images tif": lambda folder: _write_images(folder, "tif"),
    "images gif": lambda folder: _write_images(folder, "gif"),
    "images bmp": lambda folder: _write_images(folder, "bmp"),
    "cifar binary": lambda folder: _write_cifar(folder, python=False),
    "cifar python": lambda folder: _write_cifar(folder, python=True),
}


def _read(spec: str, side: int) -> np.ndarray:
    # Palettes become colours, so that all images are given to a model of three channels; inputs are as they are.
    channels = 1 if spec.endswith("a.npz") or spec.endswith("b.npz") else 3
    source = open_data(spec, split="train", input_shape=(channels, side, side))
    out = np.zeros((len(source), channels, side, side), np.float32)
    source.fetch(list(range(len(source))), out)
    assert len(source.labels) == len(source)
    return out


def _damaged(raw: bytes, dice: random.Random) -> bytes:
    """Cut off, with some bytes changed, with a piece of it moved elsewhere, or with more behind it."""
    kind = dice.randrange(4)
    if kind == 0:
        return raw[: dice.randrange(len(raw))]
    changed = bytearray(raw)
    if kind == 1:
        # Headers lie at both ends.
        for _ in range(dice.choice([1, 2, 8])):
            at = dice.choice([dice.randrange(len(raw)), dice.randrange(min(64, len(raw))), -dice.randrange(1, 65)])
            changed[max(at, -len(raw))] = dice.choice([0, 0xFF, 0x7F, 0x80, dice.randrange(256)])
    elif kind == 2:
        start, end = sorted(dice.randrange(len(raw)) for _ in range(2))
        changed[start:start] = raw[start:end]
    else:
        changed += dice.randbytes(dice.randrange(1, 100))
    return bytes(changed)


@pytest.mark.parametrize("name", _SETS)
def test_a_damaged_file_is_one_line_or_examples(name: str, tmp_path: Path) -> None:
    spec = _SETS[name](tmp_path)
    side = 32 if name.startswith("cifar") else 6
    assert len(_read(spec, side)) > 0
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    dice, refused = random.Random(name), 0
    for _ in range(_DAMAGES):
        file = dice.choice(files[:3])
        raw = file.read_bytes()
        file.write_bytes(_damaged(raw, dice))
        try:
            assert np.isfinite(_read(spec, side)).all() or name == "npz inputs"
        except DataError as error:
            refused += 1
            assert "\n" not in str(error) and str(tmp_path) in str(error)
        finally:
            file.write_bytes(raw)
    assert refused > _DAMAGES // 10


def _npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path / "a.npz", **arrays)
    return f"npz:{path / 'a.npz'}"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.full(_COUNT, -1).astype(np.uint64)}, r"label 18446744073709551615 \(example 0\) is not a class"),
        ({"labels": _LABELS.astype(float)}, r"labels is float64 \[12\].*save labels.astype\('int64'\)"),
        ({"labels": np.eye(3)[_LABELS]}, r"labels\.argmax\(1\)"),
        ({"images": _IMAGES.transpose(0, 2, 1)[:0], "labels": _LABELS[:0]}, "holds no example"),
        ({"images": np.stack([_IMAGES] * 3, -1)}, r"channels last; save images\.transpose\(0, 3, 1, 2\)"),
        ({"images": np.array(_IMAGES, order="F")}, r"save numpy\.ascontiguousarray\(images\)"),
        ({"images": _IMAGES.astype(np.int64)}, "images is int64"),
        ({"labels": np.array(["a"] * _COUNT)}, r"labels is text \[\d+\]; expected numbers; save numpy\.unique"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_the_way_out(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    spec = _npz(tmp_path, **{"images": _IMAGES, "labels": _LABELS, **arrays})
    with pytest.raises(DataError, match=message):
        _read(spec, 6)


def test_what_means_the_same_is_read(tmp_path: Path) -> None:
    plain = _read(_npz(tmp_path, images=_IMAGES, labels=_LABELS), 6)
    np.testing.assert_array_equal(_read(_npz(tmp_path, images=_IMAGES[..., None], labels=_LABELS), 6), plain)
    np.testing.assert_array_equal(_read(_npz(tmp_path, images=_IMAGES, labels=_LABELS > 0), 6), plain)
    np.testing.assert_array_equal(_read(_npz(tmp_path, inputs=_FLOATS.astype(">f4"), labels=_LABELS), 6), _FLOATS)
    np.testing.assert_array_equal(_read(_npz(tmp_path, images=_IMAGES, labels=_LABELS.astype(">i8")), 6), plain)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    spec = _npz(tmp_path, images=_IMAGES, labels=_LABELS)
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := raw.find(magic, at + 1)) >= 0:
            raw[at + flags] |= 1
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.npz: not a readable npz file: .*encrypted"):
        _read(spec, 6)


def test_a_test_split_is_never_the_training_examples(tmp_path: Path) -> None:
    for arrays in ({"images": _IMAGES}, {"inputs": _FLOATS}):
        spec = _npz(tmp_path, labels=_LABELS, **arrays)
        with pytest.raises(DataError, match=r"has no test split; add the arrays test_.*--split train"):
            open_data(spec, split="test", input_shape=(1, 6, 6))


@pytest.mark.parametrize("zeros", [b"", b"\0" * 30])
def test_a_gzip_file_of_several_members_is_read_whole(tmp_path: Path, zeros: bytes) -> None:
    spec = _write_idx(tmp_path, lambda raw: gzip.compress(raw[:9]) + gzip.compress(raw[9:]) + zeros, ".gz")
    assert len(_read(spec, 6)) == _COUNT


def test_a_gzip_file_that_unpacks_to_more_than_its_header_says_is_refused(tmp_path: Path) -> None:
    spec = _write_idx(tmp_path, lambda raw: gzip.compress(raw + bytes(50 << 20)), ".gz")
    with pytest.raises(DataError, match="unpacks to more than the 448 bytes that its header describes"):
        _read(spec, 6)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_is_no_archive(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    _npz(tmp_path, images=_IMAGES, labels=_LABELS)
    (tmp_path / "b.npz").write_bytes(pack((tmp_path / "a.npz").read_bytes()))
    with pytest.raises(DataError, match=r"b\.npz: not a readable npz file"):
        _read(f"npz:{tmp_path / 'b.npz'}", 6)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("numbers", ["list", "array", "numpy's"])
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int, text: bool, numbers: str) -> None:
    labels = {"list": _LABELS.tolist(), "array": _LABELS, "numpy's": list(_LABELS)}[numbers]
    content = {"data": _COLOURS.reshape(_COUNT, -1), "labels": labels}
    named = content if text else {key.encode(): value for key, value in content.items()}
    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}").write_bytes(pickle.dumps(named, protocol=protocol))
    source = open_data(f"cifar10:{tmp_path}", split="train", input_shape=(3, 32, 32))
    assert source.labels.tolist() == _LABELS.tolist() * 5
    np.testing.assert_allclose(_read(f"cifar10:{tmp_path}", 32)[:_COUNT], _COLOURS / 255 * 2 - 1, atol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 10, 100, 1000])
def test_a_draw_keeps_the_classes_in_proportion(count: int) -> None:
    labels = [0] * 50 + [1] * 30 + [2] * 20
    drawn = sample(labels, count)
    assert len(drawn) == min(count, 100) == len(set(drawn)) and list(drawn) == sorted(drawn)
    for label, share in ((0, 0.5), (1, 0.3), (2, 0.2)):
        assert abs(sum(labels[position] == label for position in drawn) - share * len(drawn)) < 1
    assert drawn == sample(labels, count)


def test_a_draw_of_targets_knows_no_classes_and_is_spread() -> None:
    drawn = sample([0.5] * 400, 20, rows=2)
    assert len(drawn) == 20 and max(drawn) < 200 and min(drawn) < 50 < 150 < max(drawn)
