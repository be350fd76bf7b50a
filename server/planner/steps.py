"""Where a model is cut into steps: by dynamic programming over its units, from what a fleet can hold.

In a step that ends with unit e, a client trains the longest suffix of units 0 to e that it holds, with the output
module behind it; where it holds none, the output module alone. The cut is chosen by these goals, each before the next:

1. Every unit is trained, in one of the steps at least, by the share `coverage` of the clients; where the fleet cannot
   do that in any step, by as many as can.
2. There are as few steps as that allows.
3. As many clients as possible have work, on average over the steps.
4. The predicted time is short: the sum over the steps of a round's time, which is that of the `SLOWEST` quantile.

What the fleet can do for a unit is what it does in the step that ends there. A step counts for a unit where it trains
that one, and all behind it up to the step's end, by as many as they need. A unit that nobody can train does not count;
it keeps its initial values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import ExecutionError, UsageError
from device_profiles.files import read_json, write_json
from device_profiles.model import Partition

SLOWEST = 0.9
"""A round is taken to last as long as that of the client that is slower than this share of those with work."""

STEPS_NAME = "steps.json"
"""Of a run's folder: what was chosen when it began."""

Bytes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Clients that need the same bytes for the same work, such as those of one kind of device.

    Attributes:
        budgets: what they may use, in bytes; each value once, rising.
        counts: how many clients have each of these budgets.
        needs: promised bytes by the last unit e of a step: [e + 2], of the suffix from unit 0, from unit 1, ... from
            unit e, and of the output module alone.
        seconds: of a round with the same work; empty where nobody knows.
    """

    budgets: Bytes
    counts: NDArray[np.int64]
    needs: Mapping[int, Bytes]
    seconds: Mapping[int, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        budgets: Sequence[int] | Bytes,
        needs: Mapping[int, Sequence[int]],
        seconds: Mapping[int, Sequence[float]] | None = None,
    ) -> Group:
        """From one budget a client, in any order."""
        values, counts = np.unique(np.asarray(budgets, np.int64), return_counts=True)
        return cls(
            budgets=values,
            counts=counts,
            needs={end: np.asarray(row, np.int64) for end, row in needs.items()},
            seconds={end: np.asarray(row, np.float64) for end, row in (seconds or {}).items()},
        )

    @property
    def clients(self) -> int:
        """How many they are."""
        return int(self.counts.sum())

    def holding(self, end: int) -> NDArray[np.int64]:
        """Clients by what they do in the step that ends with unit `end`, [end + 3]: train from unit 0, from unit 1, ...
        from unit `end`, the output module alone, nothing."""
        least = np.minimum.accumulate(self.needs[end])
        below = np.concatenate([[0], np.cumsum(self.counts)])
        # Looked up among the budgets, of which there may be a million, rather than each of them among the needs.
        able = below[-1] - below[np.searchsorted(self.budgets, least, side="left")]
        holding: NDArray[np.int64] = np.diff(able, prepend=0, append=below[-1])
        return holding


def first_held(needs: Bytes, budgets: Bytes) -> NDArray[np.int64]:
    """For each budget [n], the position of the first of `needs` [k] within it, k where there is none; [n]."""
    least = np.minimum.accumulate(needs)
    # The first position whose running minimum is within the budget is the first that is within it by itself.
    return np.searchsorted(-least, -budgets, side="left")


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: it ends with unit `last_unit`.

    Attributes:
        coverage: share of the clients that train each unit from 0 to `last_unit`.
        clients: how many there are, and `working`, how many of them have any work.
        seconds: predicted for a round, None where nobody knows.
    """

    last_unit: int
    coverage: tuple[float, ...]
    clients: int
    working: int
    seconds: float | None = None

    @property
    def participation(self) -> float:
        """Share of the clients with any work."""
        return self.working / self.clients if self.clients else 0.0


class Steps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps that were chosen.

    Attributes:
        steps: in the order in which they are trained.
        coverage: by unit, the share of the clients that train it in the step where most do.
        wanted: the share that was asked for.
        reachable: by unit, the share that trains it in a step that ends there: the most that growing can do.
    """

    steps: tuple[Step, ...]
    coverage: tuple[float, ...]
    wanted: float
    reachable: tuple[float, ...]

    @property
    def partition(self) -> Partition:
        """The steps as blocks."""
        return Partition.ending_with([step.last_unit for step in self.steps])

    @property
    def short(self) -> tuple[int, ...]:
        """Units that fewer clients train than was asked for."""
        return tuple(unit for unit, share in enumerate(self.coverage) if share < self.wanted)


def choose_steps(groups: Sequence[Group], units: int, *, coverage: float, most: int | None = None) -> Steps:
    """The best cut of a model of `units` units for the clients in `groups`; the least share of them that trains a unit
    is `coverage`, in [0, 1], and there are at most `most` steps (any number by default).

    Every step's needs are those of a model whose units behind it are one block. Raises ExecutionError where nobody
    holds anything, UsageError where `most` steps do not do.
    """
    every = [step_of(groups, end) for end in range(units)]
    if not any(step.working for step in every):
        raise ExecutionError(
            f"none of {every[0].clients} clients holds any part of the model",
            remedy="give clients more memory, or train a smaller model or batch",
        )
    ends = _fewest(every, [min(coverage, step.coverage[-1]) for step in every])
    if most is not None and len(ends) > most:
        raise UsageError(
            f"it takes {len(ends)} steps to train every unit on a share of {coverage:g} of the clients",
            field="steps",
            value=most,
            remedy="allow more steps, or ask for a smaller coverage",
        )
    return _described(every, ends, coverage)


def given_steps(groups: Sequence[Group], ends: Sequence[int], *, coverage: float) -> Steps:
    """What the clients make of steps that somebody chose: each ends with one of `ends`, rising, up to the model's."""
    return _described([step_of(groups, end) for end in range(ends[-1] + 1)], ends, coverage)


def one_more(groups: Sequence[Group], steps: Steps) -> Steps | None:
    """The best of all cuts with one more step: the least of the units' shares is largest, then most clients have work;
    None where every unit ends a step already."""
    ends = [step.last_unit for step in steps.steps]
    more = [end for end in range(ends[-1]) if end not in ends]
    cuts = [given_steps(groups, sorted([*ends, end]), coverage=steps.wanted) for end in more]
    return max(cuts, key=lambda cut: (min(cut.coverage), sum(step.working for step in cut.steps)), default=None)


def _described(every: Sequence[Step], ends: Sequence[int], coverage: float) -> Steps:
    chosen = tuple(every[end] for end in ends)
    return Steps(
        steps=chosen,
        coverage=tuple(max(s.coverage[u] for s in chosen if s.last_unit >= u) for u in range(len(every))),
        wanted=coverage,
        reachable=tuple(step.coverage[-1] for step in every),
    )


def step_of(groups: Sequence[Group], end: int) -> Step:
    """What the clients make of a step that ends with unit `end`."""
    holding = np.sum([group.holding(end) for group in groups], axis=0)
    clients = int(holding.sum())
    training = np.cumsum(holding)
    return Step(
        last_unit=end,
        coverage=tuple(float(count) / max(1, clients) for count in training[: end + 1]),
        clients=clients,
        working=int(training[end + 1]),
        seconds=_round_seconds(groups, end),
    )


def _round_seconds(groups: Sequence[Group], end: int) -> float | None:
    """The `SLOWEST` quantile over the clients with work, None where nobody has any or nobody knows."""
    if any(end not in group.seconds for group in groups):
        return None
    seconds = np.concatenate([group.seconds[end] for group in groups])
    counts = np.concatenate([group.holding(end)[:-1] for group in groups])
    order = np.argsort(seconds, kind="stable")
    passed = np.cumsum(counts[order])
    if not len(passed) or passed[-1] == 0:
        return None
    return float(seconds[order][np.searchsorted(passed, SLOWEST * passed[-1])])


def _fewest(every: Sequence[Step], needed: Sequence[float]) -> tuple[int, ...]:
    """Ends of the best steps that train every unit on the share that it needs. There are some: every unit is the end of
    a step that trains it so.

    Of two steps that follow each other, the later one reaches back to the earlier one's end. Otherwise a third one,
    later still, would train what lies between them, and with it all that the second one does: fewer steps would do.
    """
    # By end: cost and ends of the best steps up to there; every unit so far is trained.
    best: dict[int, tuple[_Cost, tuple[int, ...]]] = {-1: ((0, 0, 0.0), ())}
    for step in every:
        first = _first_trained(step, needed)
        before = [best[end] for end in range(first - 1, step.last_unit) if end in best]
        if before:
            cost, ends = min(before)
            best[step.last_unit] = (_added(cost, step), (*ends, step.last_unit))
    return best[len(every) - 1][1]


_Cost = tuple[int, int, float]


def _added(cost: _Cost, step: Step) -> _Cost:
    """Steps, clients without work in them, seconds; each summed."""
    return cost[0] + 1, cost[1] + step.clients - step.working, cost[2] + (step.seconds or 0.0)


def _first_trained(step: Step, needed: Sequence[float]) -> int:
    """The first of the units that the step trains on the share that they need, without a gap up to its end."""
    first = step.last_unit + 1
    while first > 0 and step.coverage[first - 1] >= needed[first - 1]:
        first -= 1
    return first


def kept_steps(folder: Path) -> Steps | None:
    """The steps that the run in `folder` began with, None where it has not begun."""
    path = folder / STEPS_NAME
    return read_json(path, Steps) if path.is_file() else None


def keep_steps(folder: Path, steps: Steps) -> Steps:
    """The steps, written for the run in `folder` to go on with."""
    write_json(folder / STEPS_NAME, steps)
    return steps
