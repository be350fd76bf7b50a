"""The seam between data formats and training: labels, and images on demand.

Nothing here imports numpy: it would more than double what a command needs before it becomes the training process.
"""

from __future__ import annotations

import math
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from device_profiles.contract import DType
from device_profiles.errors import DataError
from device_profiles.places import temporary_folder
from device_profiles.settings import Exported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels = array[int]
    """Of type 'q', which numpy takes as int64 without a copy."""
    Offsets = range | array[int]

Split = Literal["train", "test"]
Shape = tuple[int, ...]
Part = tuple[int, int, int, int] | tuple[int, bytes]
"""Images of one open file: its descriptor, then offset of the first, bytes between two and their number; or the offsets
of all as int64 of this machine."""
HELD_OUT_EVERY = 5
"""Where a data set has no test part of its own, example i is held out when i % 5 == 4."""


class Clients(NamedTuple):
    """Whose example each one is: `ids` has a position in `names` for every example.

    Clients are what the data itself knows them by, such as the person who wore a sensor. A split without an example of
    a client still names it, so that both splits count alike.
    """

    ids: array[int]
    names: tuple[str, ...]


class DataSource(Protocol):
    """Examples of a data set, as a model takes them.

    `image_shape` is that of the raw images, None where a file holds the inputs themselves; either way an example takes
    `record_bytes` in it. `origin` and `labels_origin` name the files. `labels` are whole numbers, one for each example,
    or `targets` of them or of float32 numbers for each (0 with one label). `clients` is None where the data does not
    know them.
    """

    labels: array[Any]
    clients: Clients | None
    targets: int
    labels_origin: str
    origin: str
    classes: int
    input_shape: Shape
    input_dtype: DType
    record_bytes: int
    parts: list[Part]

    @property
    def image_shape(self) -> Shape | None:
        """Channels, height and width in the file, or None."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int] | NDArray[np.int64], out_images: NDArray[Any]) -> None:
        """Fill `out_images` [n, ...] with the inputs of `indices` (n of them), never augmented."""

    def check_tokens(self, vocabulary: int) -> None:
        """Raise DataError, with the file, for a token outside 0..vocabulary-1."""


class Pixels(Protocol):
    """Raw images of one size, [channels, height, width] of uint8, and their labels."""

    labels: Labels
    clients: Clients | None
    labels_origin: str
    origin: str
    classes: int
    shape: Shape

    def parts(self) -> list[Part]:
        """Where the images lie, in open files that live as long as this."""

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Read image `index` into `out` (uint8, `shape`)."""


class RecordFile:
    """Images that lie at known offsets of one open file."""

    def __init__(
        self,
        file: IO[bytes],
        offsets: Offsets,
        labels: Labels,
        *,
        shape: Shape,
        origin: str,
        labels_origin: str,
        clients: Clients | None = None,
    ) -> None:
        self._file = file
        self._offsets = offsets
        self.origin = origin
        self.labels = labels
        self.clients = clients
        self.labels_origin = labels_origin
        self.shape = shape
        self.classes = max(labels) + 1 if len(labels) else 0

    def parts(self) -> list[Part]:
        """Where the images lie; evenly spaced ones take no memory each."""
        file, offsets = self._file.fileno(), self._offsets
        if isinstance(offsets, range):
            return [(file, offsets.start, offsets.step, len(offsets))]
        return [(file, offsets.tobytes())]

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Read image `index` into `out`; raises DataError where the file ends early."""
        view = out.reshape(-1).data
        if os.preadv(self._file.fileno(), [view], self._offsets[index]) != len(view):
            raise DataError(f"{self.origin}: ends inside image {index}")


class PixelSource:
    """Pixels fitted to a model's input: enlarged, centred, repeated to its channels, scaled to [-1, 1]."""

    input_dtype: DType = "float32"
    targets = 0

    def __init__(self, pixels: Pixels, input_shape: Shape) -> None:
        self._pixels = pixels  # its files must stay open
        self.labels: array[Any] = pixels.labels
        self.clients = pixels.clients
        self.labels_origin = pixels.labels_origin
        self.classes = pixels.classes
        self.origin = pixels.origin
        self.image_shape = pixels.shape
        self.record_bytes = math.prod(pixels.shape)
        self.input_shape = input_shape
        self.parts = pixels.parts()
        self._images: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: Sequence[int] | NDArray[np.int64], out_images: NDArray[np.float32]) -> None:
        """Fill `out_images` [n, C, H, W] with the scaled images of `indices` (n of them), as the training does."""
        if self._images is None:
            from edge_runtime.device import _native

            self._images = _native.Images(*(extents(shape) for shape in (self.image_shape, self.input_shape)))
            for part in self.parts:
                (self._images.add_at if len(part) == 2 else self._images.add)(*part)
        failed = self._images.fetch([int(index) for index in indices], out_images)
        if failed >= 0:
            raise DataError(f"{self.origin}: ends inside image {failed}")

    def check_tokens(self, vocabulary: int) -> None:
        """Pixels are no tokens."""


def extents(shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width."""
    channels, height, width = shape
    return channels, height, width


def check_fits(pixels: Pixels, input_shape: Shape, spec: str) -> None:
    """Raise DataError, with both shapes, unless the images can be fitted to the model's input."""
    channels, height, width = pixels.shape
    found = f"images are {channels}x{height}x{width}, the model takes {'x'.join(map(str, input_shape))}"
    if len(input_shape) != 3:
        raise DataError(
            found, field="data", value=spec, remedy="inputs that are no images need npz:FILE with float32 `inputs`"
        )
    if channels not in (1, input_shape[0]):
        raise DataError(found, field="data", value=spec, remedy=Exported("input_shape", pixels.shape))
    if height > input_shape[1] or width > input_shape[2]:
        raise DataError(found, field="data", value=spec, remedy="images larger than the input are not shrunk here")
    if not len(pixels.labels):
        raise DataError("holds no example", field="data", value=spec)


def check_wanted(shape: Shape, dtype: DType, wanted: tuple[Shape, DType], spec: str) -> None:
    """Raise DataError, with both, where examples of `shape` and `dtype` are not what the model takes."""
    if (shape, dtype) != wanted:
        takes = f"{wanted[1]} of {'x'.join(map(str, wanted[0]))}"
        found = f"is {dtype} of {'x'.join(map(str, shape))} for an example, the model takes {takes}"
        raise DataError(found, field="data", value=spec)


def held_out(count: int, split: Split) -> list[int]:
    """Indices of `split` of a data set without a test part of its own."""
    last = HELD_OUT_EVERY - 1
    return [index for index in range(count) if (index % HELD_OUT_EVERY == last) == (split == "test")]


def sample(labels: Sequence[float], count: int, *, rows: int = 0, seed: int = 0) -> array[int]:
    """Positions of at most `count` examples, ascending: a draw that keeps the classes in proportion.

    Data sets are often sorted by class, so that the first of them would be of one class. The draw of a
    seed is always the same. With `rows`, `labels` are that many numbers for an example, and the draw knows no classes.
    """
    examples = len(labels) // rows if rows else len(labels)
    members: dict[float, list[int]] = {}
    for position in range(examples):
        members.setdefault(0 if rows else labels[position], []).append(position)
    count = min(count, examples)
    shares = {label: count * len(positions) / examples for label, positions in members.items()}
    taken = {label: int(share) for label, share in shares.items()}
    # What rounding down leaves over goes to the largest remainders.
    for label in sorted(members, key=lambda label: (taken[label] - shares[label], label))[
        : count - sum(taken.values())
    ]:
        taken[label] += 1
    return array(
        "q", sorted(p for label, positions in members.items() for p in _drawn(positions, seed)[: taken[label]])
    )


def _drawn(positions: list[int], seed: int) -> list[int]:
    """In an order that has nothing to do with where they lie."""
    salt = seed.to_bytes(8, "little")
    return sorted(positions, key=lambda at: blake2b(at.to_bytes(8, "little"), digest_size=8, salt=salt).digest())


def unpacked(pieces: Iterable[bytes | bytearray]) -> IO[bytes]:
    """Spool the pieces of a compressed file to an unnamed temporary file, so that memory holds one piece.

    Raises DataError, naming the folder, where it has no room.
    """
    folder = temporary_folder()
    with _naming_folder(folder):
        spool = tempfile.TemporaryFile(prefix="profl-edge-", dir=folder)  # noqa: SIM115 -- the caller reads it
    for piece in pieces:
        with _naming_folder(folder):
            spool.write(piece)
    with _naming_folder(folder):
        spool.flush()
    return spool


@contextmanager
def _naming_folder(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{folder}: {reason}; the data are unpacked there: set TMPDIR to a folder with room") from None


def open_file(path: Path) -> IO[bytes]:
    """Open for reading; raises DataError naming the file."""
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
