"""Bounds on what one update can do to the mean: by what the other updates of the round did.

Two steps. What no honest training does is rejected (`outliers`): a move many times as far as the others', a move
against theirs, statistics of another size. What is only larger than theirs is cut down to a multiple of the median
(`bounded`; norm clipping after Sun et al., "Can you really backdoor federated learning?", 2019). Updates within the
bounds are not touched, so that honest rounds are plain FedAvg, bit for bit. Multi-Krum, medians and trimmed means
change every round and lose what only few clients know; FLTrust needs data on the server. `docs/security.md` has the
rates at which honest updates are touched, which the bounds were chosen by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate, corner
from server.fleet.structure import Structure
from server.judging.alike import ENOUGH, Base, Group, allowed_moves, channel_floor, groups, parameters_of, statistics_of

OUTLIER_FACTOR = 10.0
"""An update that moved this many times farther than the median of those like it stays out of the average."""
OPPOSED_FACTOR = 2.0
"""An update that moved this many times as far as the median, and against the others, stays out."""
OPPOSED_COSINE = -0.7
"""One that moved this much against the others stays out, however far; honest ones are above -0.5."""
VARIANCE_FACTOR = 10.0
"""Running variances of a tensor that are this many times those of the others, or a part of them, keep an update out;
a single channel is cut down to it. Honest channels stay below 5."""
MEAN_FACTOR = 10.0
"""Running means of a tensor that are this many standard deviations from the others' (root mean square) keep it out."""
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
and take any scale that the data have within a round. All there is to judge them by where there is nothing to compare
with."""


def outliers(
    updates: Sequence[ReceivedUpdate], works: Mapping[str, Work], structure: Structure, base: Base
) -> dict[str, str]:
    """Clients whose update moved absurdly far from `base`, or not as those of the same work did, with the reason;
    `works` says what each was asked for.

    Lengths of moves are compared per trained value, with all updates of the round where those of the same work are
    fewer than three. Directions and running statistics are compared with those of the same work alone.
    """
    rejected = alone_outliers(updates, works, structure, base)
    left = [update for update in updates if update.client not in rejected]
    rejected |= _too_far(left, works, structure, base)
    for group in groups([update for update in left if update.client not in rejected], works, structure):
        found = _odd_statistics(group) | _opposed(group, base)
        rejected |= {client: reason for client, reason in found.items() if client in group.judged}
    return rejected


def alone_outliers(
    updates: Sequence[ReceivedUpdate], works: Mapping[str, Work], structure: Structure, base: Base
) -> dict[str, str]:
    """Those that are absurd by themselves: their moves against the size of what they started from."""
    rejected: dict[str, str] = {}
    for update in updates:
        roles = {name: tensor.role for name, tensor in structure.tensors(works[update.client]).items()}
        reason = next(
            (r for n, role in roles.items() if role != "parameter" if (r := _odd_statistic(n, update, base))), ""
        )
        move, size = _move(parameters_of(structure, works[update.client]), update, base)
        if move > MOVE_FACTOR * (size + MOVE_FLOOR):
            reason = f"parameters moved by {move:.3g} each, from values of size {size:.3g}"
        if reason:
            rejected[update.client] = reason
    return rejected


def _too_far(
    updates: Sequence[ReceivedUpdate], works: Mapping[str, Work], structure: Structure, base: Base
) -> dict[str, str]:
    moved = {u.client: _move(parameters_of(structure, works[u.client]), u, base)[0] for u in updates}
    alike: dict[str, list[ReceivedUpdate]] = {}
    for update in updates:
        alike.setdefault(works[update.client].name, []).append(update)
    among_all, found = _far_of(updates, moved), dict[str, str]()
    for own in alike.values():
        far = _far_of(own, moved) if len(own) >= ENOUGH else among_all
        found |= {update.client: far[update.client] for update in own if update.client in far}
    return {update.client: found[update.client] for update in updates if update.client in found}


def _far_of(compared: Sequence[ReceivedUpdate], moved: Mapping[str, float]) -> dict[str, str]:
    """Those of updates that can be compared whose move is many times the median of all."""
    median = float(np.median([moved[update.client] for update in compared])) if len(compared) >= ENOUGH else 0.0
    if median <= 0:
        return {}
    found: dict[str, str] = {}
    for update, allowed in zip(compared, allowed_moves(compared), strict=True):
        times = moved[update.client] / median
        if times > OUTLIER_FACTOR * allowed:
            found[update.client] = f"moved {times:.0f} times as far as the median of its round"
    return found


def _opposed(group: Group, base: Base) -> dict[str, str]:
    """Who moved against the others: by the cosine with the sum of their moves, none of them longer than the median."""
    products = np.zeros((len(group.updates), len(group.updates)))
    for name in group.parameters:
        for moves in group.moves(name, base):
            products += moves @ moves.T
    lengths = np.sqrt(np.diag(products))
    median = float(np.median(lengths))
    if median <= 0:
        return {}
    factors = np.minimum(1.0, median / np.maximum(lengths, np.finfo(float).tiny))
    products *= np.outer(factors, factors)
    # Of each with all, so that those with the others follow without adding them up anew for every update.
    own, with_all = np.diag(products), products.sum(axis=1)
    with_others = with_all - own
    sizes = np.sqrt(np.maximum(with_all.sum() - with_all - with_others, 0.0) * own)
    cosines = np.divide(with_others, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    rejected = {}
    for position, update in enumerate(group.updates):
        cosine = float(cosines[position])
        times = lengths[position] / median / group.allowed[position]
        if cosine < OPPOSED_COSINE or (cosine < 0 and times > OPPOSED_FACTOR):
            rejected[update.client] = (
                f"moved against the others of its round (cosine {cosine:.2f}, {times:.1f} times as far)"
            )
    return rejected


def _odd_statistics(group: Group) -> dict[str, str]:
    rejected: dict[str, str] = {}
    for variance, mean in statistics_of(group):
        sizes, deviations = _sizes(group, variance), _deviations(group, variance, mean)
        for position, update in enumerate(group.updates):
            times, far = float(sizes[position]), float(np.sqrt((deviations[position] ** 2).mean()))
            if not 1 / VARIANCE_FACTOR <= times <= VARIANCE_FACTOR:
                said = f"{variance}: {times:.3g} times the median of its round"
            elif mean and far > MEAN_FACTOR:
                said = f"{mean}: {far:.3g} standard deviations from the median of its round"
            else:
                continue
            rejected.setdefault(update.client, f"running statistic {said}")
    return rejected


def _odd_statistic(name: str, update: ReceivedUpdate, base: Base) -> str | None:
    move, size = _move([name], update, base)
    if move <= STATISTIC_FACTOR * (size + 1.0):
        return None
    return f"running statistic {name} moved by {move:.3g} each, from values of size {size:.3g}"


def _move(names: Sequence[str], update: ReceivedUpdate, base: Base) -> tuple[float, float]:
    """Root mean square over the trained values of these tensors: of their move, and of what they started from."""
    moves, sizes, values = 0.0, 0.0, 0
    for name in names:
        tensor = update.tensors[name]
        start = base[name][corner(tensor)].astype(np.float64)
        difference = tensor.astype(np.float64) - start
        rows = update.rows.get(name)
        if rows is not None:
            difference, start = difference[rows], start[rows]
        moves += float((difference**2).sum())
        sizes += float((start**2).sum())
        values += difference.size
    return float(np.sqrt(moves / max(values, 1))), float(np.sqrt(sizes / max(values, 1)))


def _sizes(group: Group, variance: str) -> NDArray[np.float64]:
    """Mean variance of the tensor against that of the median update."""
    values = group.values(variance)
    floor = channel_floor(values)
    sizes: NDArray[np.float64] = (values.mean(axis=1) + floor) / (np.median(values, axis=0).mean() + floor)
    return sizes


def _deviations(group: Group, variance: str, mean: str) -> NDArray[np.float64]:
    if not mean:
        return np.zeros((len(group.updates), 1))
    variances, means = group.values(variance), group.values(mean)
    spread = np.sqrt(np.median(variances, axis=0) + channel_floor(variances))
    deviations: NDArray[np.float64] = (means - np.median(means, axis=0)) / spread
    return deviations
