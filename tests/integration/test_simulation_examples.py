"""The simulation engine reads the examples that a device reads, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from edge_runtime.device import _native  # noqa: E402
from edge_runtime.device.data.npz_writing import write_npz  # noqa: E402
from edge_runtime.device.data.open import open_data  # noqa: E402
from edge_runtime.device.worker.batches import epoch_start  # noqa: E402
from server.engines.simulation.examples import crop_and_flip, epoch_order, model_inputs  # noqa: E402


@pytest.mark.parametrize("count", [1, 17, 500])
def test_examples_come_in_the_order_of_the_device(count: int) -> None:
    for seed, epoch in ((0, 0), (7, 3), (123456789, 1)):
        device = _native.Order(epoch_start(seed, epoch), count).batch(0, count)
        assert epoch_order(seed, epoch, count).tolist() == list(device)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 32, 32)])
def test_pixels_become_the_values_of_the_device(shape: tuple[int, int, int], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    write_npz(tmp_path / "part.npz", images, np.arange(3))
    staged = np.empty((3, 3, 32, 32), np.float32)
    source = open_data(f"npz:{tmp_path / 'part.npz'}", split="train", input_shape=(3, 32, 32))
    source.fetch([0, 1, 2], staged)
    np.testing.assert_array_equal(model_inputs(torch.from_numpy(images), (3, 32, 32)).numpy(), staged)


def test_crops_are_windows_of_the_padded_image_or_their_mirror_images() -> None:
    images = torch.randn(40, 2, 6, 5)
    cropped = crop_and_flip(images, torch.Generator().manual_seed(3))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), value=-1.0)
    places = set()
    for number in range(40):
        found = [
            (top, left, flipped)
            for top in range(9)
            for left in range(9)
            for flipped in (False, True)
            if torch.equal(_window(padded[number], top, left, flipped), cropped[number])
        ]
        assert found, number
        places.add(found[0])
    assert len(places) > 20 and len({flipped for _, _, flipped in places}) == 2


def _window(padded: Any, top: int, left: int, flipped: bool) -> Any:
    window = padded[:, top : top + 6, left : left + 5]
    return window.flip(2) if flipped else window
