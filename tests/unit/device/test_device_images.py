"""Folders of images: which class, which split, which values."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from device_profiles.errors import DataError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.image_files import decode

pillow = pytest.importorskip("PIL.Image", reason="reads all formats but PGM and PPM: pip install pillow")
_GREY = (np.arange(12).reshape(3, 4) * 20).astype(np.uint8)
_COLOURS = np.stack([_GREY, 255 - _GREY, _GREY // 2], -1)


def _pgm(path: Path, value: int = 0, side: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"P5\n{side} {side}\n255\n".encode() + bytes([value]) * side * side)
    return path


def _classes(folder: Path, names: str, images: int = 5) -> None:
    for number, name in enumerate(names):
        for index in range(images):
            _pgm(folder / name / f"{index}.pgm", 40 * number)


def _labels(folder: Path, split: str) -> list[int]:
    return open_data(f"images:{folder}", split=split, input_shape=(1, 4, 4)).labels.tolist()  # type: ignore[arg-type]


def _refused(folder: Path, match: str, split: str = "train") -> None:
    with pytest.raises(DataError, match=match):
        _labels(folder, split)


@pytest.mark.parametrize("test", ["test", "Test", "val", "valid", "validation", "testing"])
def test_a_class_that_is_missing_in_the_test_part_shifts_no_label(tmp_path: Path, test: str) -> None:
    _classes(tmp_path / "train", "abc")
    _classes(tmp_path / test, "ac")
    assert _labels(tmp_path, "train") == [0] * 5 + [1] * 5 + [2] * 5
    assert _labels(tmp_path, "test") == [0] * 5 + [2] * 5
    (tmp_path / test / "b").mkdir()
    assert _labels(tmp_path, "test") == [0] * 5 + [2] * 5


def test_of_three_parts_test_is_the_test_part(tmp_path: Path) -> None:
    for part, names in (("train", "ab"), ("val", "a"), ("test", "b")):
        _classes(tmp_path / part, names)
    assert _labels(tmp_path, "test") == [1] * 5


def test_what_is_no_layout_is_refused_by_name(tmp_path: Path) -> None:
    _classes(tmp_path / "only" / "train", "ab")
    _refused(tmp_path / "only", "contains train but not test; add DIR/test")
    _classes(tmp_path / "mixed" / "train", "ab")
    _classes(tmp_path / "mixed", "z")
    _refused(tmp_path / "mixed", "'train' is the folder of a split, but 'z' is not")
    _classes(tmp_path / "new" / "train", "ab")
    _classes(tmp_path / "new" / "test", "abc")
    _refused(tmp_path / "new", "test/c: is not a class of", "test")
    _classes(tmp_path / "empty", "ab")
    (tmp_path / "empty" / "c").mkdir()
    _refused(tmp_path / "empty", "c: contains no image")
    _classes(tmp_path / "deep", "ab")
    _pgm(tmp_path / "deep" / "a" / "phone" / "more" / "1.pgm")
    _refused(tmp_path / "deep", "phone/more: is a folder inside a client's folder")
    _classes(tmp_path / "beside", "ab")
    _pgm(tmp_path / "beside" / "1.pgm")
    _refused(tmp_path / "beside", r"1\.pgm: is outside the class folders")


def test_a_file_that_is_no_image_is_refused_unless_it_is_a_usual_companion(tmp_path: Path) -> None:
    _classes(tmp_path, "ab")
    for name in (".DS_Store", "Thumbs.db", "labels.csv", "README", "a/notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert _labels(tmp_path, "test") == [0, 1]
    (tmp_path / "a" / "photo.heic").write_bytes(b"x")
    _refused(tmp_path, r"a/photo\.heic: not a supported image")


def _save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    image = pillow.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"wide.{ending}"
    if ending == "pgm":
        path.write_bytes(b"P5\n4 3\n65535\n" + (_GREY.astype(">u2") * 257).tobytes())
    else:
        _save(path, _GREY.astype(np.uint16) * 257)
    assert decode(path) == ((1, 3, 4), _GREY.tobytes())


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str) -> None:
    values = _GREY if mode in ("L", "LA") else _COLOURS
    # CMYK is what a TIFF holds exactly; palettes keep few colours, of which this image has twelve.
    path = _save(tmp_path / ("image.tif" if mode == "CMYK" else "image.png"), values, mode)
    shape, pixels = decode(path)
    found = np.frombuffer(pixels, np.uint8).reshape(shape)
    expected = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    assert shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= (60 if mode == "P" else 1)


def test_an_image_of_two_values_is_black_and_white(tmp_path: Path) -> None:
    shape, pixels = decode(_save(tmp_path / "two.png", _GREY > 100))
    assert shape == (1, 3, 4) and list(pixels) == [255 * (value > 100) for value in _GREY.reshape(-1)]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_black_and_white_are_refused(tmp_path: Path, kind: type) -> None:
    with pytest.raises(DataError, match="32-bit values"):
        decode(_save(tmp_path / "wide.tif", _GREY.astype(kind)))


def test_an_image_lies_as_its_orientation_says(tmp_path: Path) -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    pillow.fromarray(_GREY).save(tmp_path / "turned.png", exif=exif)
    assert decode(tmp_path / "turned.png") == ((1, 4, 3), np.rot90(_GREY, -1).tobytes())


def test_several_images_in_a_file_are_refused(tmp_path: Path) -> None:
    first, second = pillow.fromarray(_GREY), pillow.fromarray(255 - _GREY)
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="contains 2 images"):
        decode(tmp_path / "moving.gif")


_HALF = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_an_image_that_claims_any_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    data = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"0")) + _chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    # Pillow refuses the largest itself, and what is half as large is refused here.
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image: Image size \(3600000000 pixels\)"):
        decode(tmp_path / "bomb.png")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", _HALF) + data[25:])
    with pytest.raises(DataError, match=r"bomb\.png: has 9000x9000 pixels"):
        decode(tmp_path / "bomb.png")
    first = _save(tmp_path / "first.png", _GREY)
    with pytest.raises(DataError, match=r"bomb\.png: is 9000x9000, but first\.png is 3x4"):
        decode(tmp_path / "bomb.png", expected=((1, 3, 4), first))


def test_a_link_to_a_file_that_is_missing_is_named_as_one(tmp_path: Path) -> None:
    _classes(tmp_path, "ab")
    (tmp_path / "b" / "9.png").symlink_to("nowhere.png")
    _refused(tmp_path, r"b/9\.png: points to a file that is missing")
