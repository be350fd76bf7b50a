"""Average updates tensor by tensor, weighted by examples (FedAvg, McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.task import diverged
from device_profiles.update import UpdateMetadata
from device_profiles.work import Work
from server.averaging.file_tensors import shape_of
from server.fleet.structure import Structure

LOSS_FACTOR = 10.0
"""A training has diverged whose loss has become so many times the first, or so much where the first was below 1: there
honest ones rise by many times from one batch to another."""
Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedUpdate:
    """What one client sent.

    `rows`: of these tensors, only the rows (first axis) that are true were trained. `share`: of the work that it was
    asked for, what was done. `cut`: what of it was cut down before it is averaged.
    """

    client: str
    metadata: UpdateMetadata
    tensors: Tensors
    rows: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    share: float = 1.0
    cut: str = ""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, which is not read for it where it lies in a file."""
        return shape_of(self.tensors, name)

    @property
    def weight(self) -> float:
        """In the mean: its examples, less where it stopped early."""
        return self.metadata.examples * self.share


def reason_to_reject(update: ReceivedUpdate, work: Work, structure: Structure, base_version: str) -> str | None:
    """Why an update must not enter the average: another block or base, wrong tensors, values that are not finite."""
    metadata = update.metadata
    if metadata.program not in structure.programs(work):
        return f"trained {metadata.program}, asked for {structure.label(work)}"
    if metadata.block != structure.block(work):
        return f"says that {metadata.program} trains block {metadata.block}, not {structure.block(work)}"
    if metadata.base_version != base_version:
        return f"started from weights {metadata.base_version or 'without a version'}, not {base_version}"
    if metadata.examples < 1:
        return "trained on no examples"
    expected = structure.tensors(work)
    if set(update.tensors) != set(expected):
        odd = sorted(set(update.tensors) ^ set(expected))[0]
        return f"tensor {odd} is missing or not of this block"
    for name, tensor in expected.items():
        found = update.tensors[name]
        if found.dtype != np.float32:
            return f"tensor {name} has type {found.dtype}, not float32"
        if found.shape != tensor.shape:
            return f"tensor {name} has shape {found.shape}, not {tensor.shape}"
        if not np.isfinite(found).all():
            return diverged(f"tensor {name} is not finite")
        if name.endswith("running_var") and (found < 0).any():
            return f"tensor {name} is a variance below zero"
    if not metadata.loss_last <= LOSS_FACTOR * max(1.0, metadata.loss_first):
        return diverged(f"its loss went from {metadata.loss_first:.3g} to {metadata.loss_last:.3g}")
    return None


def average(
    updates: Sequence[ReceivedUpdate], base: Mapping[str, NDArray[Any]], *, counts_frozen: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Mean of every value over the clients that trained it, weighted by examples (and the share of its work
    that each did); summed in float64.

    A tensor smaller than that of `base` is its first rows and columns (HeteroFL, Diao et al., ICLR 2021). What nobody
    trained stays as it is in `base`. With `counts_frozen`, a client without a tensor held it frozen, and counts with
    the value of `base`. The order of `updates` does not change the result: they are added by client name.
    """
    ordered = sorted(updates, key=lambda update: update.client)
    result: dict[str, NDArray[np.float32]] = {}
    for name in sorted({name for update in ordered for name in update.tensors}):
        holders = [update for update in ordered if name in update.tensors]
        if counts_frozen and len(holders) < len(ordered):
            frozen = [replace(u, tensors={name: base[name]}) for u in ordered if name not in u.tensors]
            holders = sorted((*holders, *frozen), key=lambda update: update.client)
        whole = all(u.shape(name) == base[name].shape and name not in u.rows for u in holders)
        result[name] = _mean_of_whole(name, holders) if whole else _mean_of_parts(name, holders, base[name])
    return result


def _mean_of_whole(name: str, holders: Sequence[ReceivedUpdate]) -> NDArray[np.float32]:
    weights = sum(update.weight for update in holders)
    total = np.zeros(holders[0].shape(name), np.float64)
    for update in holders:
        total += update.tensors[name].astype(np.float64) * (update.weight / weights)
    return total.astype(np.float32)


def _mean_of_parts(name: str, holders: Sequence[ReceivedUpdate], base: NDArray[Any]) -> NDArray[np.float32]:
    total = np.zeros(base.shape, np.float64)
    weight = np.zeros(base.shape, np.float64)
    for update in holders:
        tensor = update.tensors[name]
        place = corner(tensor)
        rows = np.asarray(update.rows.get(name, True))
        share = (rows * update.weight).reshape(-1, *(1,) * (tensor.ndim - 1))
        total[place] += tensor.astype(np.float64) * share
        weight[place] += np.broadcast_to(share, tensor.shape)
    return np.divide(total, weight, out=base.astype(np.float64), where=weight > 0).astype(np.float32)


def corner(tensor: NDArray[Any]) -> tuple[slice, ...]:
    """Where a tensor lies in a larger one: its first rows and columns."""
    return tuple(slice(extent) for extent in tensor.shape)
