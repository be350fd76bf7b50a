"""The clients' examples, resident on the device, in the same order and of the same values as the light runtime's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from device_profiles.errors import DataError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_CROP_PADDING = 4


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs [n, ...], uint8 pixels or the model's own inputs, and labels [n], [n, positions] or numbers [n, several],
    on one device."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_part(path: Path, device: torch.device) -> Examples:
    """A client's part as `data_split.write_parts` wrote it; raises DataError naming the file."""
    try:
        with np.load(path) as arrays:
            name = "images" if "images" in arrays else "inputs"
            inputs, labels = arrays[name], arrays["labels"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
    return Examples(torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device))


def model_inputs(inputs: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """Pixels as the light runtime stages them: enlarged by a whole factor, centred on black, repeated to the model's
    channels, scaled to [-1, 1]. Inputs that are no pixels stay as they are."""
    if inputs.dtype != torch.uint8:
        return inputs
    channels, height, width = input_shape
    rows, columns = inputs.shape[-2:]
    factor = min(height // rows, width // columns)
    if factor > 1:
        inputs = inputs.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    rows, columns = inputs.shape[-2:]
    top, left = (height - rows) // 2, (width - columns) // 2
    scaled = inputs.to(torch.float32) * np.float32(2.0 / 255.0).item() - 1.0
    padded = torch.nn.functional.pad(scaled, (left, width - columns - left, top, height - rows - top), value=-1.0)
    return padded.expand(-1, channels, -1, -1).contiguous()


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of examples in an epoch: sorted by SplitMix64 of seed, epoch and number, as on the device."""
    with np.errstate(over="ignore"):
        start = _mix(_mix(np.uint64(seed & (1 << 64) - 1)) ^ np.uint64(epoch))
        keys = start + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
        order: NDArray[np.int64] = np.argsort(_finalised(keys), kind="stable")
    return order


def batch_indices(seed: int, count: int, batch: int, steps: int) -> NDArray[np.int64]:
    """Examples of every step, [steps, batch]; the rest of an epoch that does not fill a batch is left out."""
    per_epoch = count // batch
    if per_epoch == 0:
        raise DataError(f"a client has {count} examples, one batch takes {batch}")
    orders = [epoch_order(seed, epoch, count)[: per_epoch * batch] for epoch in range(-(-steps // per_epoch))]
    return np.concatenate(orders).reshape(-1, batch)[:steps]


def _mix(value: np.uint64) -> np.uint64:
    mixed: np.uint64 = _finalised(value + _GOLDEN)
    return mixed


def _finalised(key: Any) -> Any:
    key = (key ^ (key >> np.uint64(30))) * _MIX_1
    key = (key ^ (key >> np.uint64(27))) * _MIX_2
    return key ^ (key >> np.uint64(31))


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops of images [n, C, H, W] padded by 4 with black (-1), half of them mirrored.

    Drawn anew for every batch from `generator`: another stream than the device's, with the same distribution.
    """
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (_CROP_PADDING,) * 4, value=-1.0)
    top, left = torch.randint(0, 2 * _CROP_PADDING + 1, (2, count, 1), generator=generator).to(images.device)
    flip = torch.randint(0, 2, (count, 1), generator=generator).bool().to(images.device)
    across = torch.arange(width, device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.where(flip, across.flip(0), across)
    numbers = torch.arange(count, device=images.device)
    picked: Tensor = padded[numbers[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
