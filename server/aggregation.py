"""Average updates tensor by tensor, weighted by examples (FedAvg, McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_profiles.bundle import Program
from device_profiles.contract import TRAINED_ROLES
from device_profiles.update import UpdateMetadata

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedUpdate:
    """What one client sent."""

    client: str
    metadata: UpdateMetadata
    tensors: Tensors


def reason_to_reject(update: ReceivedUpdate, program: Program, base_version: str) -> str | None:
    """Why an update must not enter the average: another block or base, wrong tensors, values that are not finite."""
    metadata = update.metadata
    if metadata.program != program.name or metadata.block != program.block:
        return f"trained {metadata.program}, asked for {program.name}"
    if metadata.base_version != base_version:
        return f"started from weights {metadata.base_version or 'without a version'}, not {base_version}"
    if metadata.examples < 1:
        return "trained on no examples"
    expected = {t.name: t.shape for t in program.tensors if t.role in TRAINED_ROLES}
    if set(update.tensors) != set(expected):
        odd = sorted(set(update.tensors) ^ set(expected))[0]
        return f"tensor {odd} is missing or not of this block"
    for name, shape in expected.items():
        if update.tensors[name].dtype != np.float32:
            return f"tensor {name} has type {update.tensors[name].dtype}, not float32"
        if update.tensors[name].shape != shape:
            return f"tensor {name} has shape {update.tensors[name].shape}, not {shape}"
        if not np.isfinite(update.tensors[name]).all():
            return f"tensor {name} is not finite"
    return None


def average(updates: Sequence[ReceivedUpdate]) -> dict[str, NDArray[np.float32]]:
    """Mean of every tensor over the clients that trained it, weighted by examples; summed in float64.

    The order of `updates` does not change the result: they are added by client name.
    """
    ordered = sorted(updates, key=lambda update: update.client)
    result: dict[str, NDArray[np.float32]] = {}
    for name in sorted({name for update in ordered for name in update.tensors}):
        holders = [update for update in ordered if name in update.tensors]
        examples = sum(update.metadata.examples for update in holders)
        total = np.zeros(holders[0].tensors[name].shape, np.float64)
        for update in holders:
            total += update.tensors[name].astype(np.float64) * (update.metadata.examples / examples)
        result[name] = total.astype(np.float32)
    return result
