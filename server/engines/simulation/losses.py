"""What clients of a simulation minimise, and what they are judged by, as the light runtime's programs have it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from device_profiles.contract import IGNORED_LABEL
from device_profiles.manifest import Loss


def loss_of(outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Mean loss of a batch.

    `outputs` [batch, classes] with `labels` [batch], [batch, positions * classes] with [batch, positions], or for the
    mean squared error [batch, numbers] both. Of labels of positions those that are ignored do not count; the loss of
    none is 0.
    """
    if loss.name == "mse":
        return functional.mse_loss(outputs, labels)
    if labels.ndim == 1:
        return functional.cross_entropy(outputs, labels, label_smoothing=loss.label_smoothing)
    counted = (labels != IGNORED_LABEL).sum().clamp(min=1)
    rows = outputs.reshape(labels.numel(), -1)
    smoothing = loss.label_smoothing
    total = functional.cross_entropy(
        rows, labels.reshape(-1), label_smoothing=smoothing, ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return total / counted


def accuracy_of(outputs: Tensor, labels: Tensor, loss: Loss) -> float | None:
    """The share of the labels that count whose logit is the largest; None where there are numbers instead."""
    if loss.name == "mse":
        return None
    right = outputs.reshape(labels.numel(), -1).argmax(1) == labels.reshape(-1)
    counted = labels.reshape(-1) != IGNORED_LABEL
    return float(right[counted].double().mean())


def empty_labels(batch: int, positions: int | None, numbers: int) -> Tensor:
    """Labels of a batch, or numbers, that are all 0."""
    if numbers:
        return torch.zeros(batch, numbers)
    return torch.zeros((batch,) if positions is None else (batch, positions), dtype=torch.int64)
