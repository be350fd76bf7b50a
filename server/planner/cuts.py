"""Which units steps end with: by dynamic programming over the units, from what clients make of each step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from device_profiles.errors import UsageError
from server.planner.holding import Step
from server.planner.pace import Pace


def fewest(every: Sequence[Step], needed: Sequence[float], pace: Pace | None = None) -> tuple[int, ...]:
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
            best[step.last_unit] = (_added(cost, step, len(every), pace), (*ends, step.last_unit))
    return best[len(every) - 1][1]


def reach(every: Sequence[Step], ends: Sequence[int], needed: Sequence[float]) -> bool:
    """Whether steps with these ends, which rise to the last unit, train every unit on the share that it needs."""
    before = -1
    for end in ends:
        if _first_trained(every[end], needed) > before + 1:
            return False
        before = end
    return True


def so_many(every: Sequence[Step], count: int, coverage: float, pace: Pace | None = None) -> tuple[int, ...]:
    """Ends of the best `count` steps. Each counts for its own units, behind the end of the step before: the least share
    of clients that trains one of them is as large as it can be up to `coverage`, then most clients have work, then the
    time is short. Raises UsageError where there are not so many units."""
    if not 1 <= count <= len(every):
        raise UsageError(
            f"the model has {len(every)} units",
            field="blocks",
            value=count,
            remedy=f"give a number from 1 to {len(every)}",
        )

    def share(start: int, end: int) -> float:
        return min(coverage, *every[end].coverage[start : end + 1])

    def best(least: float) -> tuple[_Cost, tuple[int, ...]] | None:
        found: dict[int, tuple[_Cost, tuple[int, ...]]] = {-1: ((0, 0, 0.0), ())}
        for _ in range(count):
            found = {
                end: min(before)
                for end, step in enumerate(every)
                if (
                    before := [
                        (_added(cost, step, len(every), pace), (*ends, end))
                        for start, (cost, ends) in found.items()
                        if start < end and share(start + 1, end) >= least
                    ]
                )
            }
        return found.get(len(every) - 1)

    levels = sorted({share(start, end) for end in range(len(every)) for start in range(end + 1)})
    # The least level is always reached; those that are reached are the first ones.
    reached = bisect_left(range(len(levels)), True, key=lambda at: best(levels[at]) is None) - 1
    chosen = best(levels[reached])
    assert chosen is not None
    return chosen[1]


_Cost = tuple[int, int, float]


def _added(cost: _Cost, step: Step, units: int, pace: Pace | None) -> _Cost:
    """Steps, clients without work in them, seconds of all rounds; each summed.

    How many rounds the last step has depends on how many steps there are before it, which the cost says first.
    """
    rounds = 1 if pace is None else pace.rounds_of(cost[0], last=step.last_unit == units - 1)
    return cost[0] + 1, cost[1] + step.clients - step.working, cost[2] + (step.seconds or 0.0) * rounds


def _first_trained(step: Step, needed: Sequence[float]) -> int:
    """The first of the units that the step trains on the share that they need, without a gap up to its end."""
    first = step.last_unit + 1
    while first > 0 and step.coverage[first - 1] >= needed[first - 1]:
        first -= 1
    return first
