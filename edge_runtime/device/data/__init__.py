"""Data sets: labels in memory, images read from their files when a batch asks for them.

`DATA` is `fashion-mnist[:DIR]`, `mnist-5k`, `digits`, `idx:DIR`, `npz:FILE`, `images:DIR` or `cifar10:DIR`. Images
become float32: the pixel / 255, then (x - 0.5) / 0.5. A smaller image is enlarged by the largest whole factor that
fits and centred on black; a grey one is repeated to the model's channels.
"""

from __future__ import annotations

from edge_runtime.device.data.npz import write_npz
from edge_runtime.device.data.open import open_data
from edge_runtime.device.data.source import PixelSource, Split

__all__ = ["PixelSource", "Split", "open_data", "write_npz"]
