"""What is fed to the pieces of the model: weights of a file, batches of examples, outputs of frozen blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from server.engines.simulation.examples import model_inputs
from server.engines.simulation.trainable import Trainable


class WeightsFiles:
    """Reads weights onto the device; those of the last version are kept."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._loaded: tuple[str, dict[str, Tensor]] | None = None

    def read(self, path: Path, version: str | None, trainable: Trainable) -> dict[str, Tensor]:
        """Weights of a file, each as large as the work takes it; without a `version` they are not kept."""
        if version is None or self._loaded is None or self._loaded[0] != version:
            loaded = {name: tensor.to(self._device) for name, tensor in load_file(path).items()}
            if version is not None:
                self._loaded = (version, loaded)
        else:
            loaded = self._loaded[1]
        cut = {}
        for name, tensor in trainable.trained.items():
            if tuple(loaded[name].shape) != tensor.shape:
                cut[name] = loaded[name][tuple(slice(extent) for extent in tensor.shape)].contiguous()
        return {**loaded, **cut}

    def bytes_of(self, names: list[str]) -> int:
        """Of these tensors, in float32, in the version that is kept."""
        weights = self._loaded[1] if self._loaded else {}
        return sum(4 * weights[name].numel() for name in names)


class Batches:
    """Model inputs in batches of the captured size."""

    def __init__(self, input_shape: tuple[int, ...], size: int) -> None:
        self.input_shape = input_shape
        self.size = size

    def of(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """All `inputs` as the model takes them, the last batch filled up, with how many of each count."""
        for part, rows in self.rows_of(inputs):
            yield channels_last(model_inputs(part, self.input_shape)), rows

    def rows_of(self, features: Tensor) -> Iterator[tuple[Tensor, int]]:
        """The same of what needs no preparation."""
        for start in range(0, len(features), self.size):
            part = features[start : start + self.size]
            rows = len(part)
            missing = self.size - rows
            yield (torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part), rows

    def through(self, trainable: Trainable, frozen: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """What the frozen blocks make of all `inputs`."""
        prefix = trainable.prefix
        assert prefix is not None  # asked by those that have one
        with torch.no_grad():
            return torch.cat([prefix(frozen, x)[:rows] for x, rows in self.of(inputs)])


class FeatureCache:
    """Outputs of frozen blocks by client, up to a number of bytes, and as long as those blocks stay as they are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = ""
        self.kept: dict[str, Tensor] = {}
        self._bytes = 0

    def get(self, client: str, prefix: str, make: Callable[[], Tensor]) -> Tensor | None:
        """The client's features behind the frozen blocks of a task's `prefix`; None where they would not fit."""
        if prefix != self._prefix:
            self.kept.clear()
            self._prefix, self._bytes = prefix, 0
        if client not in self.kept:
            if self._bytes >= self._limit:
                return None
            self.kept[client] = make()
            self._bytes += self.kept[client].nbytes
        return self.kept[client]


def channels_last(x: Tensor) -> Tensor:
    """Images with the channels last on a CPU, which is what convolutions there are fastest with."""
    if x.ndim == 4 and x.device.type == "cpu":
        return x.contiguous(memory_format=torch.channels_last)
    return x
