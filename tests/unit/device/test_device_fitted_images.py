"""`images:DIR?size=...`: photographs of any size and colour become one size, as people expect it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data import open_data
from edge_runtime.device.data.image_files import Fit, decode_fitted

pillow = pytest.importorskip("PIL.Image", reason="reads and writes photographs: pip install pillow")


def _planes(path: Path, *fit: Any) -> np.ndarray[Any, Any]:
    shape = Fit(*fit)
    return np.frombuffer(decode_fitted(path, shape), np.uint8).reshape(shape.shape)


def _saved(path: Path, values: Any, mode: str | None = None, **options: Any) -> Path:
    pillow.fromarray(np.asarray(values), mode).save(path, **options)
    return path


def _halves(height: int, width: int) -> np.ndarray[Any, Any]:
    """Left half red, right half blue."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 200
    image[:, width // 2 :, 2] = 100
    return image


def test_the_least_that_covers_the_size_is_cut_out_of_the_centre(tmp_path: Path) -> None:
    strips = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None] * 10, 4, 0).repeat(3, 2)
    path = _saved(tmp_path / "a.png", strips)
    assert _planes(path, 3, 4, 4)[0].tolist() == [[20, 30, 40, 50]] * 4


def test_proportions_are_kept_and_a_small_image_is_enlarged(tmp_path: Path) -> None:
    path = _saved(tmp_path / "a.png", _halves(10, 40))
    planes = _planes(path, 3, 64, 64)
    assert planes[0, :, 0].tolist() == [200] * 64 and planes[2, :, -1].tolist() == [100] * 64
    assert abs(int(planes[0, 0].astype(int).sum()) - 200 * 32) <= 200


def test_the_shorter_side_is_scaled_first_where_that_is_asked_for(tmp_path: Path) -> None:
    flat = np.zeros((20, 20, 3), np.uint8)
    flat[5:15, 5:15] = 255
    path = _saved(tmp_path / "a.png", flat)
    assert (_planes(path, 3, 10, 10, 20) == 255).all()
    assert _planes(path, 3, 10, 10)[0, 0].tolist() == [0] * 10


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    exif = pillow.Exif()
    exif[0x0112] = orientation
    path = _saved(tmp_path / "a.jpg", _halves(32, 64), quality=95, exif=exif)
    red = _planes(path, 3, 32, 32)[0].astype(int)
    sides = {"left": red[:, :4], "right": red[:, -4:], "above": red[:4], "below": red[-4:]}
    brightest = max(sides, key=lambda side: sides[side].mean())
    assert brightest == {1: "left", 3: "right", 6: "above", 8: "below"}[orientation]


def test_all_colours_become_the_one_that_is_asked_for(tmp_path: Path) -> None:
    grey = np.full((4, 4), 90, np.uint8)
    made = {
        "grey.png": pillow.fromarray(grey),
        "la.png": pillow.fromarray(np.stack([grey, grey // 2], -1), "LA"),
        "rgba.png": pillow.fromarray(np.stack([grey, grey, grey, grey // 3], -1), "RGBA"),
        "palette.png": pillow.fromarray(np.stack([grey] * 3, -1)).quantize(4),
        "wide.png": pillow.fromarray(grey.astype(np.uint16) * 257),
        "one.png": pillow.fromarray(grey > 0),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
        expected = 255 if name == "one.png" else 90
        for channels in (1, 3):
            assert (_planes(tmp_path / name, channels, 4, 4) == expected).all(), name


def test_a_folder_of_photographs_of_different_sizes_is_read_in_one_line(tmp_path: Path) -> None:
    for name, value in (("a", 50), ("b", 250)):
        (tmp_path / name).mkdir()
        for index in range(5):
            _saved(tmp_path / name / f"{index}.jpg", np.full((20 + 7 * index, 31, 3), value, np.uint8), quality=100)
    data = open_data(f"images:{tmp_path}?size=16x24", split="train", input_shape=(3, 16, 24))
    out = np.empty((8, 3, 16, 24), np.float32)
    data.fetch(range(8), out)
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert np.allclose(out[:4], 50 * 2 / 255 - 1, atol=0.01) and np.allclose(out[4:], 250 * 2 / 255 - 1, atol=0.01)
    with pytest.raises(DataError, match=r"images:DIR\?size=20x31 scales and crops them"):
        open_data(f"images:{tmp_path}", split="train", input_shape=(3, 64, 64))
    grey = open_data(f"images:{tmp_path}?size=16&colour=grey", split="test", input_shape=(1, 16, 16))
    assert grey.image_shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("resize=256", "require size"),
        ("size=0", "'size=0' is not a whole number"),
        ("size=8xq", "'width=q' is not a whole number"),
        ("size=8&colour=blue", "colour=rgb"),
        ("size=64&resize=32", "resize is smaller than size"),
        ("size=9999", "a side is longer than 4096"),
        ("crop=3", "its options are size=224"),
    ],
)
def test_options_that_are_none_are_refused(tmp_path: Path, options: str, match: str) -> None:
    (tmp_path / "a").mkdir()
    for index in range(5):
        _saved(tmp_path / "a" / f"{index}.png", _halves(4, 4))
    with pytest.raises(UsageError, match=match):
        open_data(f"images:{tmp_path}?{options}", split="train", input_shape=(3, 8, 8))
