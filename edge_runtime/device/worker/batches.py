"""Which examples a step sees, from the seed and the epoch alone, and their way into the batch."""

from __future__ import annotations

from device_profiles.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from edge_runtime.device.worker.job import DataJob

    Reader = Callable[[list[int], memoryview[Any], int], int]
    """Fills a batch, augmented as follows from the last argument; returns the first example that its file does not
    hold whole, or -1."""

IGNORED_LABEL = -100
"""As in `device_profiles.contract`, whose imports this process does without."""
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_AUGMENTATION = 0x61756701
"""What tells the hash of an epoch's augmentation from that of its order."""


def epoch_start(seed: int, epoch: int) -> int:
    """Where the hash that orders the examples of an epoch starts.

    `numpy.random` would shuffle as well, but it may change between releases, and a resumed run must continue with the
    same batches.
    """
    return _mix(_mix(seed & _MASK) ^ (epoch & _MASK))


def augmentation_start(seed: int, epoch: int) -> int:
    """Where the hash starts that the augmentation of every example in an epoch follows from.

    It knows nothing of batches, threads or the number of steps so far: an example of an epoch is always the same image.
    """
    return _mix(epoch_start(seed, epoch) ^ _AUGMENTATION)


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


class Batches:
    """Indices of the batch of any step. The last examples of an epoch that do not fill a batch are left out."""

    def __init__(self, native: Any, *, seed: int, examples: int, batch: int) -> None:
        self._native = native
        self._seed = seed
        self._examples = examples
        self._batch = batch
        self.per_epoch = examples // batch
        self._epoch = -1
        self._order: Any = None

    def epoch(self, step: int) -> int:
        """The epoch (0-based) that `step` (0-based) belongs to."""
        return step // self.per_epoch

    def indices(self, step: int) -> list[int]:
        """Examples of `step` (0-based, counted over all epochs)."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = None  # before the next one is made, so that two never live at once
            self._order = self._native.Order(epoch_start(self._seed, epoch), self._examples)
            self._epoch = epoch
        indices: list[int] = self._order.batch(position * self._batch, self._batch)
        return indices


class Examples:
    """The examples of a data set: inputs on disk, labels in memory. Augmentation follows from `seed` and the epoch."""

    def __init__(self, native: Any, data: DataJob, *, seed: int = 0) -> None:
        self._seed = seed
        self._augment = data["augment"]
        self._origin = data["origin"]
        label_format: Any = data["label_format"]
        self._label_format = label_format
        self._labels: memoryview[Any] = memoryview(data["labels"]).cast(label_format)
        values = 1
        for extent in data["input_shape"]:
            values *= extent
        words = values * (2 if data["input_dtype"] == "int64" else 1)
        self._example_bytes = 4 * words
        self._targets = data["targets"]
        self._kind = "example" if data["image_shape"] is None else "image"
        self._read = _array_reader(native, data, words) if data["image_shape"] is None else _image_reader(native, data)

    def __len__(self) -> int:
        return len(self._labels) // max(self._targets, 1)

    def rehearse(self) -> None:
        """Read one example and its label beside the batch."""
        self.fetch([0], memoryview(bytearray(self._example_bytes)).cast("f"), epoch=0)
        self._labels[0]

    def fetch(self, indices: list[int], batch: memoryview[Any], *, epoch: int) -> None:
        """Fill the first rows of `batch` with inputs as they are in `epoch`. Raises DataError where the file ends
        early."""
        failed = self._read(indices, batch, augmentation_start(self._seed, epoch) if self._augment else 0)
        if failed >= 0:
            raise DataError(f"{self._origin}: ends inside {self._kind} {failed}")

    def fetch_filled(self, indices: list[int], batch: memoryview[Any], *, epoch: int) -> None:
        """The same for a batch that may have more rows: the last example again in each of them.

        What lies there otherwise may be no token, which no program takes.
        """
        self.fetch([*indices, *indices[-1:] * (len(batch) - len(indices))], batch, epoch=epoch)

    def label(self, index: int) -> int:
        """Label of an example."""
        return int(self._labels[index])

    def labels(self, index: int) -> list[int]:
        """Labels of an example that has several."""
        first = index * self._targets
        return [int(label) for label in self._labels[first : first + self._targets]]

    def counted(self, indices: list[int]) -> float:
        """How many labels of these examples are not ignored, without a list of them: an image may have many."""
        rows = (self._labels[index * self._targets : (index + 1) * self._targets] for index in indices)
        return float(sum(label != IGNORED_LABEL for row in rows for label in row))

    def target(self, index: int) -> list[float]:
        """What an example's output is compared with."""
        first = index * self._targets
        return [float(number) for number in self._labels[first : first + self._targets]]

    def fetch_labels(self, indices: list[int], labels: memoryview[Any]) -> None:
        """Fill the first of `labels`, or rows of several for an example."""
        if self._targets:
            rows = labels.cast("B").cast(self._label_format)
            for position, index in enumerate(indices):
                first = position * self._targets
                from_first = index * self._targets
                rows[first : first + self._targets] = self._labels[from_first : from_first + self._targets]
            return
        for position, index in enumerate(indices):
            labels[position] = self._labels[index]


def _image_reader(native: Any, data: DataJob) -> Reader:
    images = native.Images(data["image_shape"], data["input_shape"])
    for part in data["parts"]:
        if len(part) == 2:
            images.add_at(*part)
        else:
            images.add(*part)
    fetch: Reader = images.fetch_augmented
    return fetch if data["augment"] else lambda indices, batch, _: int(images.fetch(indices, batch))


def _array_reader(native: Any, data: DataJob, words: int) -> Reader:
    # Rows are copied byte by byte, as words of four: a token is two of them.
    rows = native.FeatureRows("float32", 1, words)
    (part,) = data["parts"]
    if len(part) == 2:
        file, places = part[0], memoryview(part[1]).cast("q")
        first = places[0] % rows.row_bytes
        numbers = [(place - first) // rows.row_bytes for place in places]
        return lambda indices, batch, _: int(
            rows.read(file, first, [numbers[i] for i in indices], batch.cast("B").cast("f"))
        )
    file, first = part[:2]
    return lambda indices, batch, _: int(rows.read(file, first, indices, batch.cast("B").cast("f")))
