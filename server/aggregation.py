"""Average updates tensor by tensor, weighted by examples (FedAvg, McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.update import UpdateMetadata
from server.structure import Structure
from server.work import Work

Tensors = Mapping[str, NDArray[np.float32]]

OUTLIER_FACTOR = 10.0
"""An update that moved this many times farther than the median of those like it stays out of the average."""
MOVE_FACTOR = 100.0
"""An update whose parameters moved this many times as far as they are large stays out, however few updates there are.

Honest rounds move weights by a fraction of their size; a training that moved them a hundred times as far has diverged,
or is no training.
"""
MOVE_FLOOR = 0.1
"""Added to the size per value that `MOVE_FACTOR` multiplies: parameters may start at zero. Initialised layers have
0.01 to 0.1, so that ten (a hundred times this) is far more than any of them becomes."""
STATISTIC_FACTOR = 1e6
"""The same for each running statistic, whose size is that of the activations: means and variances start at 0 and 1
and take any scale that the data have within a round."""
_ENOUGH = 3
"""Updates whose median means something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedUpdate:
    """What one client sent.

    `rows`: of these tensors, only the rows (first axis) that are true were trained. `share`: of the work that it was
    asked for, what was done.
    """

    client: str
    metadata: UpdateMetadata
    tensors: Tensors
    rows: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    share: float = 1.0

    @property
    def weight(self) -> float:
        """In the mean: its examples, less where it stopped early."""
        return self.metadata.examples * self.share


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
        if name.endswith("running_var") and (update.tensors[name] < 0).any():
            return f"tensor {name} is a variance below zero"
    return None


def outliers(
    updates: Sequence[ReceivedUpdate], works: Mapping[str, Work], structure: Structure, base: Mapping[str, NDArray[Any]]
) -> dict[str, str]:
    """Clients whose update moved absurdly far from `base`, with the reason; `works` says what each was asked for.

    Two measures of the trained parameters, per trained value so that parts of different size can be compared: how far
    they moved against their own size, which judges a single update; and against the median of the updates of the same
    work, or of all where those are fewer than three. Running statistics follow the data, not the training: honest ones
    differ by far more than parameters do, and only an absurd size of theirs counts.
    """
    rejected: dict[str, str] = {}
    moved: dict[str, float] = {}
    for update in updates:
        roles = {name: tensor.role for name, tensor in structure.tensors(works[update.client]).items()}
        reason = next(
            (r for n, role in roles.items() if role != "parameter" if (r := _odd_statistic(n, update, base))), ""
        )
        move, size = _move([name for name, role in roles.items() if role == "parameter"], update, base)
        if move > MOVE_FACTOR * (size + MOVE_FLOOR):
            reason = f"parameters moved by {move:.3g} each, from values of size {size:.3g}"
        if reason:
            rejected[update.client] = reason
        else:
            moved[update.client] = move
    for client, move in moved.items():
        alike = [other for name, other in moved.items() if works[name].name == works[client].name]
        compared = alike if len(alike) >= _ENOUGH else list(moved.values())
        median = float(np.median(compared))
        if len(compared) >= _ENOUGH and median > 0 and move > OUTLIER_FACTOR * median:
            rejected[client] = f"moved {move / median:.0f} times as far as the median of its round"
    return rejected


def _odd_statistic(name: str, update: ReceivedUpdate, base: Mapping[str, NDArray[Any]]) -> str | None:
    move, size = _move([name], update, base)
    if move <= STATISTIC_FACTOR * (size + 1.0):
        return None
    return f"running statistic {name} moved by {move:.3g} each, from values of size {size:.3g}"


def _move(names: Sequence[str], update: ReceivedUpdate, base: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Root mean square over the trained values of these tensors: of their move, and of what they started from."""
    moves, sizes, values = 0.0, 0.0, 0
    for name in names:
        tensor = update.tensors[name]
        start = base[name][_corner(tensor)].astype(np.float64)
        difference = tensor.astype(np.float64) - start
        rows = update.rows.get(name)
        if rows is not None:
            difference, start = difference[rows], start[rows]
        moves += float((difference**2).sum())
        sizes += float((start**2).sum())
        values += difference.size
    return float(np.sqrt(moves / max(values, 1))), float(np.sqrt(sizes / max(values, 1)))


def average(
    updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]], *, frozen_count: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Mean of every value over the clients that trained it, weighted by examples (and the share of its work
    that each did); summed in float64.

    A tensor smaller than that of `base` is its first rows and columns (HeteroFL, Diao et al., ICLR 2021). What nobody
    trained stays as it is in `base`. With `frozen_count`, a client without a tensor held it frozen, and counts with the
    value of `base`. The order of `updates` does not change the result: they are added by client name.
    """
    ordered = sorted(updates, key=lambda update: update.client)
    result: dict[str, NDArray[np.float32]] = {}
    for name in sorted({name for update in ordered for name in update.tensors}):
        holders = [update for update in ordered if name in update.tensors]
        if frozen_count and len(holders) < len(ordered):
            frozen = [replace(u, tensors={name: base[name]}) for u in ordered if name not in u.tensors]
            holders = sorted((*holders, *frozen), key=lambda update: update.client)
        whole = all(u.tensors[name].shape == base[name].shape and name not in u.rows for u in holders)
        result[name] = _mean_of_whole(name, holders) if whole else _mean_of_parts(name, holders, base[name])
    return result


def _mean_of_whole(name: str, holders: Sequence[ReceivedUpdate]) -> NDArray[np.float32]:
    weights = sum(update.weight for update in holders)
    total = np.zeros(holders[0].tensors[name].shape, np.float64)
    for update in holders:
        total += update.tensors[name].astype(np.float64) * (update.weight / weights)
    return total.astype(np.float32)


def _mean_of_parts(name: str, holders: Sequence[ReceivedUpdate], base: NDArray[Any]) -> NDArray[np.float32]:
    total = np.zeros(base.shape, np.float64)
    weight = np.zeros(base.shape, np.float64)
    for update in holders:
        tensor = update.tensors[name]
        corner = _corner(tensor)
        rows = update.rows.get(name, np.ones(tensor.shape[:1], np.bool_))
        share = (rows * update.weight).reshape(-1, *(1,) * (tensor.ndim - 1))
        total[corner] += tensor.astype(np.float64) * share
        weight[corner] += np.broadcast_to(share, tensor.shape)
    trained = weight > 0
    return np.where(trained, total / np.where(trained, weight, 1.0), base).astype(np.float32)


def _corner(tensor: NDArray[Any]) -> tuple[slice, ...]:
    return tuple(slice(extent) for extent in tensor.shape)
