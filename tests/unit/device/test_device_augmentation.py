"""Augmented images: the pixels of a crop and a flip, and what decides over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.device import _native
from edge_runtime.device.worker.batches import augmentation_start, epoch_start

_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def _key(start: int, example: int) -> int:
    key = (start + (example + 1) * _GOLDEN) & _MASK
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & _MASK
    return key ^ (key >> 31)


def _choices(start: int, example: int) -> tuple[int, int, bool]:
    """Row and column of the crop in the padded image, and whether it is turned over."""
    key = _key(start, example)
    return ((key & 0x7FFFFFFF) * 9) >> 31, ((key >> 31 & 0x7FFFFFFF) * 9) >> 31, bool(key >> 63)


def _reference(pixels: np.ndarray, channels: int, size: int, start: int, example: int) -> np.ndarray:
    """Centred on black, padded with 4 more black pixels, cropped, turned, and only then scaled to [-1, 1]."""
    margin = (size - pixels.shape[-1]) // 2
    image = np.pad(np.broadcast_to(pixels, (channels, *pixels.shape[1:])), ((0, 0), *[(margin + 4, margin + 4)] * 2))
    row, column, turned = _choices(start, example)
    image = image[:, row : row + size, column : column + size]
    image = image[:, :, ::-1] if turned else image
    return image.astype(np.float32) * np.float32(2.0 / 255.0) - np.float32(1.0)


class _Set:
    """Random images in a file, as the training process reads them."""

    def __init__(self, folder: Path, raw: tuple[int, int, int], channels: int, size: int, count: int = 40) -> None:
        self.pixels = np.random.default_rng(3).integers(0, 256, (count, *raw), np.uint8)
        self.pixels[self.pixels == 0] = 1  # so that black is only what was added
        path = folder / "pixels"
        path.write_bytes(self.pixels.tobytes())
        self.file = path.open("rb")
        self.shape = (channels, size, size)
        self.images = _native.Images(raw, self.shape)
        self.images.add(self.file.fileno(), 0, int(np.prod(raw)), count)

    def fetch(self, indices: list[int], start: int | None) -> np.ndarray:
        out = np.full((len(indices), *self.shape), np.nan, np.float32)
        if start is None:
            assert self.images.fetch(indices, out) == -1
        else:
            assert self.images.fetch_augmented(indices, out, start) == -1
        return out


CASES = {"colour": ((3, 32, 32), 3, 32), "grey on black": ((1, 28, 28), 3, 32), "small": ((1, 5, 5), 1, 9)}


@pytest.fixture(params=CASES)
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = _Set(tmp_path, *CASES[request.param])
    yield made
    made.file.close()


def test_pixels_are_those_of_the_padded_image(images: _Set) -> None:
    start = augmentation_start(5, 2)
    found = images.fetch(list(range(40)), start)
    for example in range(40):
        expected = _reference(images.pixels[example], images.shape[0], images.shape[1], start, example)
        np.testing.assert_array_equal(found[example], expected)


def test_an_example_is_the_same_in_any_batch(images: _Set) -> None:
    start = augmentation_start(1, 7)
    whole = images.fetch(list(range(40)), start)
    order = list(np.random.default_rng(1).permutation(40))
    found = np.concatenate([images.fetch([int(i) for i in order[at : at + 7]], start) for at in range(0, 40, 7)])
    np.testing.assert_array_equal(found, whole[order])


def test_seed_and_epoch_give_other_images_and_none_is_the_order(images: _Set) -> None:
    starts = {augmentation_start(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(starts) == 25
    assert not starts & {epoch_start(seed, epoch) for seed in range(5) for epoch in range(5)}
    one, other = (images.fetch([0, 1, 2, 3, 4, 5], start) for start in sorted(starts)[:2])
    assert not np.array_equal(one, other)


def test_an_image_that_its_file_does_not_hold_is_named(images: _Set) -> None:
    assert images.images.fetch_augmented([0, 40], np.empty((2, *images.shape), np.float32), 0) == 40


def test_every_crop_comes_about_equally_often_and_half_are_turned() -> None:
    chosen = [_choices(augmentation_start(0, epoch), example) for epoch in range(40) for example in range(200)]
    counts = np.zeros((9, 9))
    for row, column, _ in chosen:
        counts[row, column] += 1
    # 98.8 expected each, standard deviation 9.9: five of them.
    assert abs(counts - 8000 / 81).max() < 50
    assert abs(sum(turned for *_, turned in chosen) - 4000) < 5 * 45


def test_augmentation_never_changes_between_releases() -> None:
    # A checkpoint of an older release continues with the same images.
    assert [_choices(augmentation_start(3, 1), example) for example in range(4)] == [
        (1, 3, False),
        (3, 3, False),
        (7, 8, True),
        (1, 5, False),
    ]
