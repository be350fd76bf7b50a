"""The lines of docs/data.md that make inputs of pixels do what training and evaluation do, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.device.data import open_data
from edge_runtime.device.data.npz_writing import write_npz

_DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"


def _documented() -> Callable[..., Any]:
    """The function in the document."""
    code = _DOCUMENT.read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"np": np}
    exec(code, names)
    made: Callable[..., Any] = names["inputs"]
    return made


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        ((9, 28, 28), (3, 32, 32)),
        ((9, 28, 28), (1, 28, 28)),
        ((9, 8, 8), (3, 32, 32)),
        ((9, 5, 7), (1, 12, 33)),
        ((9, 6, 11, 3), (3, 13, 24)),
    ],
)
def test_the_document_and_the_runtime_make_the_same_inputs(
    images: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, images).astype(np.uint8)
    pixels.ravel()[:2] = 0, 255
    stored = pixels if pixels.ndim == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    write_npz(tmp_path / "some.npz", stored, np.zeros(len(pixels), np.int64))
    data = open_data(f"npz:{tmp_path / 'some.npz'}", split="train", input_shape=shape)
    expected = np.empty((len(pixels), *shape), np.float32)
    data.fetch(range(len(pixels)), expected)
    np.testing.assert_array_equal(_documented()(pixels, *shape), expected)
    assert expected.min() == -1 and expected.max() == 1
