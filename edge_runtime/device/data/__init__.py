"""Data sets: labels in memory, images read from their files when a batch asks for them.

`DATA` is `fashion-mnist[:DIR]`, `mnist-5k`, `digits`, `smartwatch[:new-people]`, `shakespeare:DIR`, `idx:DIR`,
`npz:FILE`, `images:DIR`, `csv:FILE`, `parquet:FILE`, `wav:DIR`, `text:FILE`, `cifar10:DIR` or `cifar100:DIR`. Images
become float32: the pixel / 255, then (x - 0.5) / 0.5. A smaller image is enlarged by the largest whole factor that fits
and centred on black; a grey one is repeated to the model's channels. Windows of motion, rows of tables, sounds, texts,
and what `npz:FILE` may hold instead of images are of the model's own shape and taken as they are.
"""

from __future__ import annotations

from edge_runtime.device.data.open import open_data
from edge_runtime.device.data.source import DataSource, PixelSource, Split

__all__ = ["DataSource", "PixelSource", "Split", "open_data"]
