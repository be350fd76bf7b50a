"""From the text of `--data` to a data source."""

from __future__ import annotations

from pathlib import Path

from device_profiles.errors import UsageError
from edge_runtime.device.data.source import Pixels, PixelSource, Shape, Split, check_fits

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_KNOWN = "fashion-mnist, mnist-5k, digits, idx:DIR, npz:FILE, images:DIR, cifar10:DIR"


def open_data(spec: str, *, split: Split, input_shape: Shape) -> PixelSource:
    """Open `spec` for a model that takes `input_shape` ([channels, height, width]).

    Raises UsageError where `spec` is none of the known forms, DataError where files are missing, damaged or do not
    fit the shape.
    """
    pixels = open_pixels(spec, split=split)
    check_fits(pixels, input_shape, spec)
    return PixelSource(pixels, input_shape)


def open_pixels(spec: str, *, split: Split) -> Pixels:
    """Open `spec` as it is, unscaled and in its own shape; raises as `open_data` does."""
    kind, _, location = spec.partition(":")
    if kind == "fashion-mnist":
        from edge_runtime.device.data.idx import open_idx

        return open_idx(Path(location) if location else FASHION_MNIST_FOLDER, split, package="dataset-fashion-mnist")
    if kind in ("mnist-5k", "digits") and not location:
        from edge_runtime.device.data.packaged import open_packaged

        return open_packaged(kind, split)
    if not location:
        raise UsageError(f"--data {spec}: not a known data set (known: {_KNOWN})")
    if kind == "idx":
        from edge_runtime.device.data.idx import open_idx

        return open_idx(Path(location), split)
    if kind == "npz":
        from edge_runtime.device.data.npz import open_npz

        return open_npz(Path(location), split)
    if kind == "cifar10":
        from edge_runtime.device.data.cifar10 import open_cifar10

        return open_cifar10(Path(location), split)
    if kind == "images":
        from edge_runtime.device.data.images import open_images

        return open_images(Path(location), split)
    raise UsageError(f"--data {spec}: not a known data set (known: {_KNOWN})")
