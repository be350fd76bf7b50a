"""Which examples a step sees, from the seed and the epoch alone, and their way into the batch."""

from __future__ import annotations

from device_profiles.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from edge_runtime.device.job import DataJob

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def epoch_start(seed: int, epoch: int) -> int:
    """Where the hash that orders the examples of an epoch starts.

    `numpy.random` would shuffle as well, but it may change between releases, and a resumed run must continue with the
    same batches.
    """
    return _mix(_mix(seed & _MASK) ^ (epoch & _MASK))


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
    """The examples of a data set: images on disk, labels in memory."""

    def __init__(self, native: Any, data: DataJob) -> None:
        self._origin = data["origin"]
        label_format: Any = data["label_format"]
        self._labels: memoryview[Any] = memoryview(data["labels"]).cast(label_format)
        channels, height, width = data["input_shape"]
        self._image_bytes = 4 * channels * height * width
        self._images = native.Images(data["image_shape"], data["input_shape"])
        for part in data["parts"]:
            if len(part) == 2:
                self._images.add_at(*part)
            else:
                self._images.add(*part)

    def __len__(self) -> int:
        return len(self._labels)

    def rehearse(self) -> None:
        """Read one image and its label beside the batch."""
        self.fetch([0], memoryview(bytearray(self._image_bytes)).cast("f"))
        self.label(0)

    def fetch(self, indices: list[int], batch: memoryview[Any]) -> None:
        """Fill the first rows of `batch` with scaled images. Raises DataError where the file ends early."""
        failed = self._images.fetch(indices, batch)
        if failed >= 0:
            raise DataError(f"{self._origin}: ends inside image {failed}")

    def label(self, index: int) -> int:
        """Label of an example."""
        return int(self._labels[index])

    def fetch_labels(self, indices: list[int], labels: memoryview[Any]) -> None:
        """Fill the first of `labels`."""
        for position, index in enumerate(indices):
            labels[position] = self._labels[index]
