"""Average updates tensor by tensor, weighted by examples (FedAvg, McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.update import UpdateMetadata
from server.structure import Structure
from server.work import Work

Tensors = Mapping[str, NDArray[np.float32]]

OUTLIER_FACTOR = 10.0
"""An update that moved this many times farther than the median of its round stays out of the average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedUpdate:
    """What one client sent. `rows`: of these tensors, only the rows (first axis) that are true were trained."""

    client: str
    metadata: UpdateMetadata
    tensors: Tensors
    rows: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def reason_to_reject(update: ReceivedUpdate, work: Work, structure: Structure, base_version: str) -> str | None:
    """Why an update must not enter the average: another block or base, wrong tensors, values that are not finite."""
    metadata = update.metadata
    if metadata.program not in work.programs or metadata.block != work.block:
        return f"trained {metadata.program}, asked for {work.name}"
    if metadata.base_version != base_version:
        return f"started from weights {metadata.base_version or 'without a version'}, not {base_version}"
    if metadata.examples < 1:
        return "trained on no examples"
    expected = structure.tensors(work)
    if set(update.tensors) != set(expected):
        odd = sorted(set(update.tensors) ^ set(expected))[0]
        return f"tensor {odd} is missing or not of this block"
    for name, tensor in expected.items():
        if update.tensors[name].dtype != np.float32:
            return f"tensor {name} has type {update.tensors[name].dtype}, not float32"
        if update.tensors[name].shape != tensor.shape:
            return f"tensor {name} has shape {update.tensors[name].shape}, not {tensor.shape}"
        if not np.isfinite(update.tensors[name]).all():
            return f"tensor {name} is not finite"
    return None


def outliers(updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Clients whose update moved absurdly far, with the reason; needs three updates for a median that means something.

    How far: the norm of all that changed, per value, so that parts of different size can be compared.
    """
    if len(updates) < 3:
        return {}
    moved = {update.client: _movement(update, base) for update in updates}
    median = float(np.median(list(moved.values())))
    return {
        client: f"moved {distance / median:.0f} times as far as the median of its round"
        for client, distance in moved.items()
        if median > 0 and distance > OUTLIER_FACTOR * median
    }


def _movement(update: ReceivedUpdate, base: Mapping[str, NDArray[Any]]) -> float:
    squares, values = 0.0, 0
    for name, tensor in update.tensors.items():
        difference = tensor.astype(np.float64) - base[name][_corner(tensor)]
        squares += float((difference**2).sum())
        values += tensor.size
    return float(np.sqrt(squares / max(values, 1)))


def average(updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Mean of every value over the clients that trained it, weighted by examples; summed in float64.

    A tensor smaller than that of `base` is its first rows and columns (HeteroFL, Diao et al., ICLR 2021). What nobody
    trained stays as it is in `base`. The order of `updates` does not change the result: they are added by client name.
    """
    ordered = sorted(updates, key=lambda update: update.client)
    result: dict[str, NDArray[np.float32]] = {}
    for name in sorted({name for update in ordered for name in update.tensors}):
        holders = [update for update in ordered if name in update.tensors]
        whole = all(u.tensors[name].shape == base[name].shape and name not in u.rows for u in holders)
        result[name] = _mean_of_whole(name, holders) if whole else _mean_of_parts(name, holders, base[name])
    return result


def _mean_of_whole(name: str, holders: Sequence[ReceivedUpdate]) -> NDArray[np.float32]:
    examples = sum(update.metadata.examples for update in holders)
    total = np.zeros(holders[0].tensors[name].shape, np.float64)
    for update in holders:
        total += update.tensors[name].astype(np.float64) * (update.metadata.examples / examples)
    return total.astype(np.float32)


def _mean_of_parts(name: str, holders: Sequence[ReceivedUpdate], base: NDArray[Any]) -> NDArray[np.float32]:
    total = np.zeros(base.shape, np.float64)
    weight = np.zeros(base.shape, np.float64)
    for update in holders:
        tensor = update.tensors[name]
        corner = _corner(tensor)
        rows = update.rows.get(name, np.ones(tensor.shape[:1], np.bool_))
        share = (rows * float(update.metadata.examples)).reshape(-1, *(1,) * (tensor.ndim - 1))
        total[corner] += tensor.astype(np.float64) * share
        weight[corner] += np.broadcast_to(share, tensor.shape)
    trained = weight > 0
    return np.where(trained, total / np.where(trained, weight, 1.0), base).astype(np.float32)


def _corner(tensor: NDArray[Any]) -> tuple[slice, ...]:
    return tuple(slice(extent) for extent in tensor.shape)
