"""`images:DIR`: one folder per class, in alphabetical order; decoded once when training starts.

`DIR/train` and `DIR/test` are the splits where both exist; otherwise every fifth image is held out. PGM and PPM files
are read here, everything else by Pillow, which is asked for when it is needed.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import IO

import numpy as np

from device_profiles.errors import DataError
from edge_runtime.device.data.source import Bytes, Part, Shape, Split, held_out, unpacked

_ENDINGS = {".pgm", ".ppm", ".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_NETPBM = re.compile(rb"(P[56])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


class ImageFolder:
    """Image files of one size. All must have the shape of the first."""

    def __init__(self, files: list[Path], labels: list[int], classes: int, folder: Path) -> None:
        self._files = files
        self.labels = np.array(labels, np.int64)
        self.labels_origin = self.origin = str(folder)
        self._decoded: IO[bytes] | None = None
        self.classes = classes
        self.shape: Shape = _decode(files[0]).shape

    def parts(self) -> list[Part]:
        """Decode every image into an unnamed temporary file, once: training reads each of them in every epoch."""
        self._decoded = unpacked(self._pixels(index) for index in range(len(self._files)))
        size = int(np.prod(self.shape))
        return [(self._decoded.fileno(), 0, size, len(self._files))]

    def _pixels(self, index: int) -> bytes:
        out = np.empty(self.shape, np.uint8)
        self.read(index, out)
        return out.tobytes()

    def read(self, index: int, out: Bytes) -> None:
        """Decode image `index` into `out`; raises DataError where it is not one or has another size."""
        image = _decode(self._files[index])
        if image.shape != self.shape:
            first = self._files[0].name
            raise DataError(f"{self._files[index]}: {list(image.shape)}, but {first} is {list(self.shape)}")
        out[...] = image


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
        found = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in _ENDINGS)
        files += found
        labels += [label] * len(found)
    if not own_split:
        chosen = held_out(len(files), split).tolist()
        files, labels = [files[i] for i in chosen], [labels[i] for i in chosen]
    if not files:
        raise DataError(f"{root}: no image; images:DIR needs one folder per class with .png, .jpg, .ppm or .pgm files")
    return ImageFolder(files, labels, len(classes), root)


def _decode(path: Path) -> Bytes:
    """The image as uint8 [channels, height, width]."""
    if path.suffix.lower() in (".pgm", ".ppm"):
        return _decode_netpbm(path)
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        raise DataError(f"{path}: reading this format needs Pillow; pip install pillow") from None
    try:
        with pillow.open(path) as image:
            converted = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except (OSError, ValueError) as error:  # Pillow's UnidentifiedImageError is an OSError
        raise DataError(f"{path}: not a readable image: {error}") from None
    return converted[None] if converted.ndim == 2 else converted.transpose(2, 0, 1)


def _decode_netpbm(path: Path) -> Bytes:
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
    return np.frombuffer(body, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
