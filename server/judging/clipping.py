"""Cut down what goes beyond the other updates of a round, but may be honest (norm clipping)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate, corner
from server.averaging.file_tensors import Change, ChangedTensors
from server.fleet.structure import Structure
from server.judging.alike import Base, Group, channel_floor, groups, statistics_of
from server.judging.outliers import VARIANCE_FACTOR

CLIP_FACTOR = 3.0
"""An update that moved this many times farther counts with as much; honest ones seldom reach it."""
TENSOR_CLIP_FACTOR = 6.0
"""The same for a single tensor, where honest ones differ by more: below 5."""
TENSOR_SHARE = 0.05
"""A tensor may always move by this part of a whole median move: a bias before BatchNorm moves by rounding alone."""
VARIANCE_CLIP_FACTOR = 3.0
"""All variances of a tensor together count as at most this many times the median's; honest ones stay below 2.5."""
MEAN_CLIP_FACTOR = 3.0
"""A single channel's is cut down to so many."""


def bounded(
    updates: Sequence[ReceivedUpdate], works: Mapping[str, Work], structure: Structure, base: Base
) -> list[ReceivedUpdate]:
    """The same updates, those beyond the bounds cut down to them, and saying so in `cut`."""
    tensors: dict[str, dict[str, Change]] = {}
    said: dict[str, list[str]] = {}
    for group in groups(updates, works, structure):
        for client, what, changed in (*_clipped_moves(group, base), *_clipped_statistics(group)):
            if client in group.judged:
                tensors.setdefault(client, {}).update(changed)
                said.setdefault(client, []).append(what)
    return [
        replace(u, tensors=ChangedTensors(u.tensors, tensors[u.client]), cut=_together(said[u.client]))
        if u.client in said
        else u
        for u in updates
    ]


def _clipped_moves(group: Group, base: Base) -> Iterator[tuple[str, str, dict[str, Change]]]:
    lengths = {name: group.lengths(name, base) for name in group.parameters}
    whole = np.sqrt(sum((own**2 for own in lengths.values()), np.zeros(len(group.updates))))
    least = TENSOR_SHARE * float(np.median(whole))
    limits = {n: max(TENSOR_CLIP_FACTOR * float(np.median(o)), least) * group.allowed for n, o in lengths.items()}
    limit = CLIP_FACTOR * float(np.median(whole)) * group.allowed
    for position, update in enumerate(group.updates):
        factors = {
            name: min(1.0, limits[name][position] / own[position]) if own[position] > 0 else 1.0
            for name, own in lengths.items()
        }
        left = float(np.sqrt(sum((lengths[name][position] * factor) ** 2 for name, factor in factors.items())))
        scale = min(1.0, limit[position] / left) if left > 0 and limit[position] > 0 else 1.0
        cut = {name: factor * scale for name, factor in factors.items() if factor * scale < 1.0}
        if not cut:
            continue
        changed = {name: _shortened(name, base, factor) for name, factor in cut.items()}
        what = "its move" if scale < 1.0 else f"the move of {', '.join(sorted(cut))}"
        yield update.client, what, changed


def _shortened(name: str, base: Base, factor: float) -> Change:
    def shortened(tensor: NDArray[Any]) -> NDArray[np.float32]:
        start = base[name][corner(tensor)].astype(np.float64)
        return (start + (tensor - start) * factor).astype(np.float32)

    return shortened


def _clipped_statistics(group: Group) -> Iterator[tuple[str, str, dict[str, Change]]]:
    for variance, mean in statistics_of(group):
        values = group.values(variance)
        middle, floor = np.median(values, axis=0), channel_floor(values)
        low, high = (middle + floor) / VARIANCE_FACTOR - floor, (middle + floor) * VARIANCE_FACTOR - floor
        cut = np.clip(values, np.maximum(low, 0.0), high)
        sizes = (cut.mean(axis=1) + floor) / (middle.mean() + floor)
        bound = np.clip(sizes, 1 / VARIANCE_CLIP_FACTOR, VARIANCE_CLIP_FACTOR)
        cut = np.where((bound != sizes)[:, None], cut * (bound / np.maximum(sizes, floor))[:, None], cut)
        yield from _changed(group, variance, values, cut)
        if mean:
            centres, spread = group.values(mean), np.sqrt(middle + floor)
            centre = np.median(centres, axis=0)
            within = np.clip(centres, centre - MEAN_CLIP_FACTOR * spread, centre + MEAN_CLIP_FACTOR * spread)
            yield from _changed(group, mean, centres, within)


def _changed(
    group: Group, name: str, values: NDArray[np.float64], cut: NDArray[np.float64]
) -> Iterator[tuple[str, str, dict[str, Change]]]:
    for position, update in enumerate(group.updates):
        if not np.array_equal(values[position], cut[position]):
            # Statistics are small: a value or two for each channel.
            tensor = cut[position].reshape(update.shape(name)).astype(np.float32)
            yield update.client, name, {name: partial(_instead, tensor)}


def _instead(tensor: NDArray[np.float32], _: NDArray[Any]) -> NDArray[np.float32]:
    return tensor


def _together(parts: Sequence[str]) -> str:
    shown = ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
    return f"{shown}: cut down to the bounds that the others of the round set"
