"""Where a model is cut into steps: by dynamic programming over its units, from what a fleet can hold.

In a step that ends with unit e, a client trains the longest suffix of units 0 to e that it holds, with the output
module behind it; where it holds none, the output module alone. The cut is chosen by these goals, each before the next:

1. Every unit is trained, in one of the steps at least, by the share `coverage` of the clients; where the fleet cannot
   do that in any step, by as many as can. Where nobody says which share, it is `COVERAGE`; if that took so many steps
   that less than half of the rounds were left to the last one, which trains most, the largest share between
   `LESS_COVERAGE` and that which does not, or where none is, which takes as few steps as `LESS_COVERAGE`.
2. There are as few steps as that allows.
3. As many clients as possible have work, on average over the steps.
4. The predicted time is short: the sum over all rounds of the time of one, which is that of the `SLOWEST` quantile.

What the fleet can do for a unit is what it does in the step that ends there. A step counts for a unit where it trains
that one, and all behind it up to the step's end, by as many as they need. A unit that nobody can train does not count;
it keeps its initial values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import msgspec

from device_profiles.errors import NothingHeldError, UsageError
from device_profiles.files import read_json, write_json
from device_profiles.model import Partition
from server.planner.cuts import fewest, reach, so_many
from server.planner.holding import Group, Step, step_of
from server.planner.pace import Pace

STEPS_NAME = "steps.json"
"""Of a run's folder: what was chosen when it began."""
PLANS_NAME = "plans"
"""Of a run's folder: a folder for each plan that took the place of another one."""
_CHOSEN_NAME = "chosen.json"
COVERAGE = 0.3
LESS_COVERAGE = 0.1
"""Chosen by the studies (docs/results.md)."""


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

    def check_work(self) -> None:
        """Raise NothingHeldError where nobody holds anything in any step."""
        _check_work(self.steps)


def choose_steps(
    groups: Sequence[Group],
    units: int,
    *,
    coverage: float | None,
    most: int | None = None,
    count: int | None = None,
    pace: Pace | None = None,
) -> Steps:
    """The best cut of a model of `units` units for the clients in `groups`; the least share of them that trains a unit
    is `coverage`, in [0, 1] (None: as the module says), and there are at most `most` steps (any number by default).
    With `count` there are so many, and the share is as large as they allow. `pace`: how many rounds a step has, by
    default the same of all.

    Every step's needs are those of a model whose units behind it are one block. Raises NothingHeldError where nobody
    holds anything, UsageError where `most` steps do not do.
    """
    every = [step_of(groups, end) for end in range(units)]
    _check_work(every)
    wanted = COVERAGE if coverage is None else coverage
    if count is not None:
        return _described(every, so_many(every, count, wanted, pace), wanted, pace)
    ends = _fewest(every, wanted, pace)
    if coverage is None and pace is not None and pace.most_steps is not None and len(ends) > pace.most_steps:
        wanted, ends = _fewer(every, ends, pace.most_steps, pace)
    if most is not None and len(ends) > most:
        raise UsageError(
            f"it takes {len(ends)} steps to train every unit on a share of {wanted:g} of the clients",
            field="steps",
            value=most,
            remedy="allow more steps, or ask for a smaller coverage",
        )
    return _described(every, ends, wanted, pace)


def _fewest(every: Sequence[Step], coverage: float, pace: Pace | None) -> tuple[int, ...]:
    return fewest(every, [min(coverage, step.coverage[-1]) for step in every], pace)


def _fewer(every: Sequence[Step], ends: tuple[int, ...], most: int, pace: Pace) -> tuple[float, tuple[int, ...]]:
    """The largest share from `LESS_COVERAGE` on that takes at most `most` steps, with its cut. Where even that one
    takes more, the largest that takes as many as it does, or `COVERAGE` with `ends` if these are as few."""
    shares = {share for step in every for share in step.coverage if LESS_COVERAGE < share < COVERAGE}
    levels = [LESS_COVERAGE, *sorted(shares)]
    cuts = {LESS_COVERAGE: _fewest(every, LESS_COVERAGE, pace)}
    if len(cuts[LESS_COVERAGE]) >= len(ends):
        return COVERAGE, ends
    most = max(most, len(cuts[LESS_COVERAGE]))

    def too_many(share: float) -> bool:
        cuts[share] = _fewest(every, share, pace)
        return len(cuts[share]) > most

    # A larger share never takes fewer steps.
    share = levels[bisect_left(levels, True, lo=1, key=too_many) - 1]
    return share, cuts[share]


def given_steps(
    groups: Sequence[Group], ends: Sequence[int], *, coverage: float | None, pace: Pace | None = None
) -> Steps:
    """What the clients make of steps that somebody chose: each ends with one of `ends`, rising, up to the model's.

    That may be nothing (`Steps.check_work`): a plan of a bundle's programs says of each client why.
    """
    wanted = COVERAGE if coverage is None else coverage
    return _described([step_of(groups, end) for end in range(ends[-1] + 1)], ends, wanted, pace)


def steps_again(
    groups: Sequence[Group],
    steps: Steps,
    done: int,
    *,
    most: int | None = None,
    given: bool = False,
    pace: Pace | None = None,
) -> Steps:
    """What other clients, those in `groups`, make of a run whose first `done` of `steps` are finished: these stay.

    Those that remain stay as well where they are as few as can be and still train every unit that remains as was asked
    for; so they do for the clients that they were chosen for, and where they were `given` by somebody. Else they are
    the best behind the finished ones, at most `most` of them. `pace` is of the rounds that remain. Raises
    NothingHeldError where nobody holds anything.
    """
    ends = [step.last_unit for step in steps.steps]
    every = [step_of(groups, end) for end in range(ends[-1] + 1)]
    start = ends[done - 1] + 1 if done else 0
    rest = [
        msgspec.structs.replace(step, last_unit=step.last_unit - start, coverage=step.coverage[start:])
        for step in every[start:]
    ]
    if not any(step.working for step in rest):
        raise NothingHeldError(f"none of {every[0].clients} clients holds any of what remains of the model")
    needed = [min(steps.wanted, step.coverage[-1]) for step in rest]
    left = [end - start for end in ends[done:]]
    best = list(fewest(rest, needed, pace))
    if most is not None and len(best) > most:
        best = list(so_many(rest, most, steps.wanted, pace))
    if given or (len(left) <= len(best) and reach(rest, left, needed)):
        best = left
    described = _described(every, [*ends[:done], *(start + end for end in best)], steps.wanted)
    rounds = [step.rounds for step in steps.steps[:done]] + (
        [None] * len(best) if pace is None else pace.schedule(len(best))
    )
    return msgspec.structs.replace(described, steps=_lasting(described.steps, rounds))


def one_more(groups: Sequence[Group], steps: Steps) -> Steps | None:
    """The best of all cuts with one more step: the least of the units' shares is largest, then most clients have work;
    None where every unit ends a step already."""
    ends = [step.last_unit for step in steps.steps]
    more = [end for end in range(ends[-1]) if end not in ends]
    every = [step_of(groups, end) for end in range(ends[-1] + 1)]
    cuts = [_described(every, sorted([*ends, end]), steps.wanted) for end in more]
    return max(cuts, key=lambda cut: (min(cut.coverage), sum(step.working for step in cut.steps)), default=None)


def _check_work(steps: Sequence[Step]) -> None:
    if not any(step.working for step in steps):
        raise NothingHeldError(
            f"none of {steps[0].clients} clients holds any part of the model",
            remedy="give clients more memory, or train a smaller model or batch",
        )


def _lasting(steps: Sequence[Step], rounds: Sequence[int | None]) -> tuple[Step, ...]:
    return tuple(msgspec.structs.replace(step, rounds=most) for step, most in zip(steps, rounds, strict=True))


def _described(every: Sequence[Step], ends: Sequence[int], coverage: float, pace: Pace | None = None) -> Steps:
    chosen = tuple(every[end] for end in ends)
    return Steps(
        steps=chosen if pace is None else _lasting(chosen, pace.schedule(len(chosen))),
        coverage=tuple(max(s.coverage[u] for s in chosen if s.last_unit >= u) for u in range(len(every))),
        wanted=coverage,
        reachable=tuple(step.coverage[-1] for step in every),
    )


class ChosenAgain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a run has other steps than before: it chose them for `clients` that were there before round `before_round`,
    when `done` steps were finished. `ends`, and `ends_before`: the last units of all its steps."""

    before_round: int
    done: int
    clients: int
    ends: tuple[int, ...]
    ends_before: tuple[int, ...]

    @property
    def line(self) -> str:
        """For people."""
        now, before = (", ".join(map(str, ends[self.done :])) for ends in (self.ends, self.ends_before))
        who = "1 device" if self.clients == 1 else f"{self.clients} devices"
        what = f"steps end with units {now} instead of {before}" if now != before else "the same steps, other programs"
        return f"before round {self.before_round}, behind {self.done} finished steps, planned again for {who}: {what}"


def plan_folder(folder: Path, number: int) -> Path:
    """Where the run in `folder` keeps the steps and the bundle of its plan `number`; 0 is what it began with."""
    return folder / PLANS_NAME / str(number) if number else folder


def kept_steps(folder: Path) -> Steps | None:
    """The steps of the plan in `folder`, None where there is none."""
    path = folder / STEPS_NAME
    return read_json(path, Steps) if path.is_file() else None


def keep_steps(folder: Path, steps: Steps) -> Steps:
    """The steps, written for the run in `folder` to go on with."""
    write_json(folder / STEPS_NAME, steps)
    return steps


def keep_chosen(folder: Path, chosen: ChosenAgain) -> None:
    """Write why there is the plan in `folder`."""
    write_json(folder / _CHOSEN_NAME, chosen)


def chosen_again(folder: Path, number: int) -> tuple[ChosenAgain, ...]:
    """Why the run in `folder` has come to its plan `number`, from plan 1 on."""
    return tuple(read_json(plan_folder(folder, n) / _CHOSEN_NAME, ChosenAgain) for n in range(1, number + 1))
