"""`images:DIR`: one folder per class, in alphabetical order; decoded once when training starts.

Class folders hold the images, or one folder per client with the client's images of that class.
`DIR/train` and `DIR/test` are the splits where both exist; otherwise every fifth image is held out. PGM and PPM files
are read here, everything else by Pillow, which is asked for when it is needed.
"""

from __future__ import annotations

import importlib
import math
import re
from array import array
from pathlib import Path
from typing import IO, TYPE_CHECKING

from device_profiles.errors import DataError
from edge_runtime.device.data.source import Clients, Part, Shape, Split, held_out, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENDINGS = {".pgm", ".ppm", ".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_NETPBM = re.compile(rb"(P[56])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


class ImageFolder:
    """Image files of one size. All must have the shape of the first."""

    def __init__(
        self, files: list[Path], labels: list[int], classes: int, folder: Path, clients: Clients | None
    ) -> None:
        self._files = files
        self.clients = clients
        self.labels = array("q", labels)
        self.labels_origin = self.origin = str(folder)
        self._decoded: IO[bytes] | None = None
        self.classes = classes
        self.shape: Shape = _decode(files[0])[0]

    def parts(self) -> list[Part]:
        """Decode every image into an unnamed temporary file, once: training reads each of them in every epoch."""
        self._decoded = unpacked(self._pixels(index) for index in range(len(self._files)))
        return [(self._decoded.fileno(), 0, math.prod(self.shape), len(self._files))]

    def _pixels(self, index: int) -> bytes:
        shape, pixels = _decode(self._files[index])
        if shape != self.shape:
            first = self._files[0].name
            raise DataError(f"{self._files[index]}: {list(shape)}, but {first} is {list(self.shape)}")
        return pixels

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Decode image `index` into `out`; raises DataError where it is not one or has another size."""
        out.reshape(-1).data[:] = memoryview(self._pixels(index))


def open_images(folder: Path, split: Split) -> ImageFolder:
    """Open a folder of class folders; the class is the position of its folder's name."""
    own_split = (folder / "train").is_dir() and (folder / "test").is_dir()
    root = folder / split if own_split else folder
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_of(root / name)
        files += found
        labels += [label] * len(found)
    if not own_split:
        chosen = held_out(len(files), split)
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    if not files:
        raise DataError(f"{root}: no image; images:DIR needs one folder per class with .png, .jpg, .ppm or .pgm files")
    parts = [folder / "train", folder / "test"] if own_split else [folder]
    return ImageFolder(files, labels, len(classes), root, _clients(files, root, parts))


def _images_of(folder: Path) -> list[Path]:
    """Images in the class folder itself, then those of each client's folder in it, in alphabetical order."""
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))]
    return [path for place in places for path in sorted(place.iterdir()) if path.suffix.lower() in _ENDINGS]


def _clients(files: list[Path], root: Path, parts: list[Path]) -> Clients | None:
    """By the folders that images lie in below their class's; `parts` are the folders of all splits."""
    depths = {len(path.relative_to(root).parts) for path in files}
    if depths == {2}:
        return None
    if depths != {3}:
        lone = next(path for path in files if len(path.relative_to(root).parts) == 2)
        raise DataError(f"{lone}: lies beside folders of clients; put every image into a client's folder, or none")
    below = (path for part in parts for path in part.glob("*/*") if path.is_dir() and not path.name.startswith("."))
    names = tuple(sorted({path.name for path in below}))
    position = {name: index for index, name in enumerate(names)}
    return Clients(array("q", [position[path.parent.name] for path in files]), names)


def _decode(path: Path) -> tuple[Shape, bytes]:
    """The image's shape, [channels, height, width], and its pixels in this order."""
    if path.suffix.lower() in (".pgm", ".ppm"):
        return _decode_netpbm(path)
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        raise DataError(f"{path}: reading this format needs Pillow; pip install pillow") from None
    try:
        with pillow.open(path) as image:
            converted = image if image.mode == "L" else image.convert("RGB")
            return _planes(converted.tobytes(), len(converted.getbands()), converted.height, converted.width)
    except (OSError, ValueError) as error:  # Pillow's UnidentifiedImageError is an OSError
        raise DataError(f"{path}: not a readable image: {error}") from None


def _decode_netpbm(path: Path) -> tuple[Shape, bytes]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    header = _NETPBM.match(raw)
    if header is None or int(header[4]) != 255:
        raise DataError(f"{path}: not a binary PGM or PPM file of bytes")
    channels = 1 if header[1] == b"P5" else 3
    width, height = int(header[2]), int(header[3])
    body = raw[header.end() :]
    if len(body) != channels * width * height:
        raise DataError(f"{path}: {len(body)} bytes of pixels, its header describes {channels * width * height}")
    return _planes(body, channels, height, width)


def _planes(pixels: bytes, channels: int, height: int, width: int) -> tuple[Shape, bytes]:
    """From [height, width, channels] to a plane for each channel."""
    return (channels, height, width), b"".join(pixels[channel::channels] for channel in range(channels))
