"""Image files as planes of bytes. Binary PGM and PPM files of bytes are read here, everything else by Pillow, which is
asked for when it is needed.

Grey images stay grey, all others become RGB as Pillow converts them (an alpha channel is dropped). Values of 16 bits
are scaled to 8. Images are turned as their EXIF orientation says.
"""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from device_profiles.errors import DataError
from device_profiles.extras import extra_remedy
from edge_runtime.device.data.source import Shape

ENDINGS = frozenset(
    (".pgm", ".ppm", ".pbm", ".pnm", ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif")
)
_NO_DATA_ENDINGS = frozenset((".txt", ".md", ".csv", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".ini", ".db"))
_NO_DATA_NAMES = frozenset(("readme", "license", "licence", "copying", "makefile", "index"))
_NETPBM = re.compile(rb"(P[56])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
_HEADER_BYTES = 4096
_LARGEST_PIXELS = 1 << 26
"""Of an image that is decoded at all: no model of a device takes more, and a small file may claim any size."""
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
_WIDE_FORMATS = ("PNG", "PPM")
"""Formats whose mode I (whole numbers of 32 bits) holds values of 16."""


class Fit(NamedTuple):
    """The size and colours that every image is brought to; `shorter` is what its shorter side is scaled to before the
    centre is cut out, None for the least that covers the size."""

    channels: int
    height: int
    width: int
    shorter: int | None = None

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        return (self.channels, self.height, self.width)


def is_no_data(path: Path) -> bool:
    """Whether a file is one that people and systems leave beside images: hidden, a list of labels, a licence."""
    name = path.name.lower()
    return (
        name.startswith(".")
        or path.suffix.lower() in _NO_DATA_ENDINGS
        or (path.suffix == "" and name in _NO_DATA_NAMES)
    )


def decode(path: Path, *, expected: tuple[Shape, Path] | None = None) -> tuple[Shape, bytes]:
    """The image's shape, [channels, height, width], and its pixels in this order.

    With `expected`, a shape and the file that has it, another size is refused before anything is decoded. Raises
    DataError, naming the file, where it is no image that can be read as 8 bits a value.
    """
    plain = _decode_netpbm(path, expected) if path.suffix.lower() in (".pgm", ".ppm", ".pnm") else None
    if plain is not None:
        return plain
    converted = _converted(path, expected)
    return _planes(converted.tobytes(), len(converted.getbands()), converted.height, converted.width)


def decode_fitted(path: Path, fit: Fit) -> bytes:
    """The pixels of `fit.shape`: scaled with an antialiased bilinear filter, its proportions kept, the centre cut out.

    Raises DataError as `decode` does.
    """
    image = _converted(path, None)
    image = image.convert("RGB" if fit.channels == 3 else "L")
    if fit.shorter is None:
        scale = max(fit.height / image.height, fit.width / image.width)
    else:
        scale = fit.shorter / min(image.height, image.width)
    height, width = max(fit.height, round(image.height * scale)), max(fit.width, round(image.width * scale))
    bilinear = importlib.import_module("PIL.Image").Resampling.BILINEAR
    if (width, height) != image.size:
        image = image.resize((width, height), bilinear)
    left, top = (width - fit.width) // 2, (height - fit.height) // 2
    cut = image.crop((left, top, left + fit.width, top + fit.height))
    return _planes(cut.tobytes(), fit.channels, fit.height, fit.width)[1]


def _converted(path: Path, expected: tuple[Shape, Path] | None) -> Any:
    """An image of Pillow's, turned as it is to be seen, of the mode L or RGB."""
    try:
        pillow = importlib.import_module("PIL.Image")
        turned = importlib.import_module("PIL.ImageOps").exif_transpose
    except ImportError:
        raise DataError(f"{path}: this format requires Pillow", remedy=extra_remedy("images")) from None
    try:
        with warnings.catch_warnings(), pillow.open(path) as image:
            warnings.simplefilter("ignore")  # what is odd about an image and can be read all the same
            width, height = image.size
            _check_size(path, height, width, expected)
            if getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{path}: contains {image.n_frames} images; save each of them as its own file")
            form = image.format
            return _eight_bits(turned(image), form, path)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes of them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable image: {reason}") from None


def _eight_bits(image: Any, form: str, path: Path) -> Any:
    """As L or RGB."""
    if image.mode in _WIDE or (image.mode == "I" and form in _WIDE_FORMATS):
        wide = image if image.mode == "I" else image.convert("I")
        # 257 x takes bytes to 16 bits: dividing finds them again, whatever wrote the file.
        return wide.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode in ("I", "F"):
        raise DataError(f"{path}: has 32-bit values, whose black and white are undefined; save it with 8 or 16 bits")
    if image.mode in ("L", "LA", "La", "1"):
        return image.convert("L")
    return image.convert("RGB")


def _check_size(path: Path, height: int, width: int, expected: tuple[Shape, Path] | None) -> None:
    # One that has to be turned over first has both exchanged.
    if expected is not None and sorted((height, width)) != sorted(expected[0][1:]):
        shape, first = expected
        raise DataError(
            f"{path}: is {height}x{width}, but {first.name} is {shape[1]}x{shape[2]}; all must have the same size, or "
            f"images:DIR?size={shape[1]}x{shape[2]} scales and crops them"
        )
    if height * width > _LARGEST_PIXELS:
        raise DataError(f"{path}: has {height}x{width} pixels, which is more than any model takes; make it smaller")


def _decode_netpbm(path: Path, expected: tuple[Shape, Path] | None) -> tuple[Shape, bytes] | None:
    """A binary file of bytes, None where Pillow has to see to it."""
    try:
        with path.open("rb") as source:
            header = _NETPBM.match(source.read(_HEADER_BYTES))
            if header is None or int(header[4]) != 255:
                return None
            channels = 1 if header[1] == b"P5" else 3
            width, height = int(header[2]), int(header[3])
            _check_size(path, height, width, expected)
            size = channels * width * height
            source.seek(header.end())
            body = source.read(size + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if len(body) != size or size == 0:
        raise DataError(f"{path}: holds {len(body)} bytes of pixels or more, its header describes {size}")
    return _planes(body, channels, height, width)


def _planes(pixels: bytes, channels: int, height: int, width: int) -> tuple[Shape, bytes]:
    """From [height, width, channels] to a plane for each channel."""
    return (channels, height, width), b"".join(pixels[channel::channels] for channel in range(channels))
