"""Updates of the same work, which can be compared with each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate
from server.averaging.file_tensors import values_of
from server.fleet.structure import Structure, TrainedTensor

Base = Mapping[str, NDArray[Any]]


ENOUGH = 3
"""Updates whose median means something."""
_VALUES_AT_ONCE = 1 << 20
"""Of all updates together, where they are held against each other value by value."""
_CHANNEL_FLOOR = 1e-3
"""Added to every variance, times the mean of its tensor: channels that are dead have any tiny variance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Updates that can be compared: of the same work, or with statistics in common.

    Attributes:
        updates: all of them.
        judged: clients that this comparison is for.
        parameters: names that are compared.
        statistics: the same.
        allowed: how many times as far as the median each may move for the steps that it made; steps follow from
            examples where a round has epochs, and no update can claim more of them than its examples give.
    """

    updates: Sequence[ReceivedUpdate]
    judged: frozenset[str]
    parameters: Sequence[str]
    statistics: Sequence[str]
    allowed: NDArray[np.float64]

    def lengths(self, name: str, base: Base) -> NDArray[np.float64]:
        """How far each update moved a tensor from `base`, one update in memory at a time."""
        moves = (_trained_move(update, name, base) for update in self.updates)
        return np.array([float(np.linalg.norm(move[None].astype(np.float64), axis=1)[0]) for move in moves])

    def moves(self, name: str, base: Base) -> Iterator[NDArray[np.float32]]:
        """What each update moved a tensor from `base`, as rows; nothing where it did not train it. A part of the
        values after the other, so that memory does not grow with the number of updates."""
        values = math.prod(self.updates[0].shape(name))
        size = max(1, _VALUES_AT_ONCE // len(self.updates))
        for first in range(0, values, size):
            part = slice(first, min(first + size, values))
            yield np.stack([_trained_move(update, name, base, part) for update in self.updates])

    def values(self, name: str) -> NDArray[np.float64]:
        """A tensor of each update, as rows."""
        return np.stack([update.tensors[name].astype(np.float64).ravel() for update in self.updates])


def groups(updates: Sequence[ReceivedUpdate], works: Mapping[str, Work], structure: Structure) -> Iterator[Group]:
    """Updates of the same work where they are enough; those of rarer work by the statistics they share."""
    count = Counter(works[update.client].name for update in updates)
    for name in sorted(name for name, number in count.items() if number >= ENOUGH):
        alike = [update for update in updates if works[update.client].name == name]
        yield _group(alike, alike, structure.tensors(works[alike[0].client]))
    rare = [update for update in updates if count[works[update.client].name] < ENOUGH]
    shapes = {(name, u.shape(name)) for u in rare for name in u.tensors if name.endswith("running_var")}
    for name, shape in sorted(shapes):
        mean = _mean_of(name)
        holders = [u for u in updates if all(n in u.tensors and u.shape(n) == shape for n in (name, mean))]
        if len(holders) >= ENOUGH:
            statistic = TrainedTensor(shape=shape, role="running_statistic")
            yield _group(holders, rare, {name: statistic, mean: statistic})


def _group(
    updates: Sequence[ReceivedUpdate], judged: Sequence[ReceivedUpdate], tensors: Mapping[str, TrainedTensor]
) -> Group:
    return Group(
        updates=updates,
        judged=frozenset(update.client for update in judged),
        parameters=[name for name, tensor in tensors.items() if tensor.role == "parameter"],
        statistics=[name for name, tensor in tensors.items() if tensor.role != "parameter"],
        allowed=allowed_moves(updates),
    )


def allowed_moves(updates: Sequence[ReceivedUpdate]) -> NDArray[np.float64]:
    """How many times as far as the median each of `updates` may move for the steps that it made, at least once."""
    steps = np.array([float(update.metadata.steps) for update in updates])
    examples = np.array([float(update.metadata.examples) for update in updates])
    ratios = np.minimum(steps / max(float(np.median(steps)), 1.0), examples / max(float(np.median(examples)), 1.0))
    return np.maximum(1.0, ratios)


def parameters_of(structure: Structure, work: Work) -> list[str]:
    """Names of what a work trains itself."""
    return [name for name, tensor in structure.tensors(work).items() if tensor.role == "parameter"]


def channel_floor(variances: NDArray[np.float64]) -> float:
    """What is added to each variance of a tensor (a row for each update) before they are compared."""
    return float(_CHANNEL_FLOOR * np.median(variances, axis=0).mean() + np.finfo(np.float32).tiny)


def statistics_of(group: Group) -> Iterator[tuple[str, str]]:
    """Names of running variances, each with its running means ("" where there are none)."""
    for name in group.statistics:
        if name.endswith("running_var"):
            mean = _mean_of(name)
            yield name, mean if mean in group.statistics else ""


def _mean_of(variance: str) -> str:
    return f"{variance.removesuffix('running_var')}running_mean"


def _trained_move(update: ReceivedUpdate, name: str, base: Base, part: slice | None = None) -> NDArray[np.float32]:
    """A tensor's move from `base`, zero where it was not trained, as one row; of `part` of its values alone."""
    shape = update.shape(name)
    part = slice(0, math.prod(shape)) if part is None else part
    start = base[name][tuple(slice(extent) for extent in shape)].reshape(-1)[part]
    move: NDArray[np.float32] = values_of(update.tensors, name, part.start, part.stop) - start.astype(np.float32)
    rows = update.rows.get(name)
    if rows is not None:
        move[~np.repeat(rows, math.prod(shape[1:]))[part]] = 0
    return move
