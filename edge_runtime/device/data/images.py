"""`images:DIR`: one folder per class, decoded once when training starts. All images have one size, or are fitted to it.

`images:DIR?size=224` scales each image so that it just covers 224x224 (or `size=HEIGHTxWIDTH`) and cuts out its centre;
`resize=256` scales the shorter side to 256 before the cut. All are then RGB, or grey with `colour=grey`.
"""

from __future__ import annotations

import math
from array import array
from typing import IO, TYPE_CHECKING

from device_profiles.errors import DataError, UsageError
from edge_runtime.device.data.class_folders import Found, Kind, files_of_classes
from edge_runtime.device.data.image_files import ENDINGS, Fit, decode, decode_fitted
from edge_runtime.device.data.query import place_and_options, whole_number
from edge_runtime.device.data.source import Part, Shape, Split, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KIND = Kind(ENDINGS, "image", "images", "images:DIR", ".png, .jpg, .ppm or .pgm")
_OPTIONS = {"size": "size=224 or size=HEIGHTxWIDTH", "resize": "resize=256", "colour": "colour=rgb or colour=grey"}
_MOST = 4096
"""Pixels of a side that images are fitted to."""


class ImageFolder:
    """Image files of one size, that of the first, or fitted to one."""

    def __init__(self, found: Found, fit: Fit | None) -> None:
        self._files = found.files
        self._fit = fit
        self.clients = found.clients
        self.labels = array("q", found.labels)
        self.labels_origin = self.origin = str(found.root)
        self._decoded: IO[bytes] | None = None
        self.classes = found.classes
        self.shape: Shape = decode(found.files[0])[0] if fit is None else fit.shape

    def parts(self) -> list[Part]:
        """Decode every image into an unnamed temporary file, once: training reads each of them in every epoch."""
        self._decoded = unpacked(self._pixels(index) for index in range(len(self._files)))
        return [(self._decoded.fileno(), 0, math.prod(self.shape), len(self._files))]

    def _pixels(self, index: int) -> bytes:
        if self._fit is not None:
            return decode_fitted(self._files[index], self._fit)
        shape, pixels = decode(self._files[index], expected=(self.shape, self._files[0]))
        if shape != self.shape:
            raise DataError(
                f"{self._files[index]}: {list(shape)}, but {self._files[0].name} is {list(self.shape)}",
                remedy=f"images:DIR?size={self.shape[1]}x{self.shape[2]} fits all to one size and colour",
            )
        return pixels

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Decode image `index` into `out`; raises DataError where it is not one or has another size."""
        out.reshape(-1).data[:] = memoryview(self._pixels(index))


def open_images(location: str, spec: str, split: Split) -> ImageFolder:
    """Open a folder of class folders, with the options behind its question mark.

    Raises UsageError for an option that is none, DataError for a folder or an image that cannot be read.
    """
    folder, options = place_and_options(location, spec, _OPTIONS)
    return ImageFolder(files_of_classes(folder, split, _KIND), _fit(options, spec))


def _fit(options: dict[str, str], spec: str) -> Fit | None:
    """What `size`, `resize` and `colour` say; None without any."""
    if not options:
        return None
    colour = options.get("colour", "rgb")
    if "size" not in options or colour not in ("rgb", "grey"):
        raise UsageError("resize and colour require size", field="data", value=spec, remedy="write size=224&colour=rgb")
    height_text, _, width_text = options["size"].partition("x")
    sides = {"size": height_text} | ({"width": width_text} if width_text else {})
    height = whole_number(sides, "size", 0, spec)
    width = whole_number(sides, "width", height, spec)
    shorter = whole_number(options, "resize", 0, spec) if "resize" in options else None
    if max(height, width, shorter or 0) > _MOST:
        raise UsageError(f"a side is longer than {_MOST}", field="data", value=spec, remedy="give less")
    if shorter is not None and shorter < max(height, width):
        raise UsageError(
            "resize is smaller than size", field="data", value=spec, remedy="give at least the longer side"
        )
    return Fit(3 if colour == "rgb" else 1, height, width, shorter)
