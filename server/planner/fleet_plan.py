"""A plan for a fleet of any size: the steps, and what each class of clients does in them.

Clients of the same kind of device whose budgets hold the same work in every step are one class. The plan has a number
for each client, that of its class, and nothing else that grows with the fleet: a million clients are a column of 4 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.contract import FORMAT_VERSION
from device_profiles.errors import FormatError
from device_profiles.model import Partition
from device_profiles.trades import Trade
from device_profiles.work import Growing, suffixes
from server.fleet.population import NameRun, no_client
from server.planner.holding import Bytes, Group, first_held
from server.planner.pace import Pace
from server.planner.steps import Steps, choose_steps, given_steps, one_more

_COLUMN = np.dtype("<u4")
DEFAULT: Trade = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Devices that need the same bytes for the same work.

    `needs` are as in `holding.Group`: of a piece of work that has several trades, of the one that needs least. `trades`
    are what these need, in the order in which they are tried, where it is not the default one alone; `seconds` are of
    a round of each of the `options`.
    """

    name: str
    needs: Mapping[int, Sequence[int]]
    seconds: Mapping[int, Sequence[float]] = field(default_factory=dict)
    trades: Mapping[int, Sequence[Mapping[Trade, int]]] = field(default_factory=dict)

    def options(self, end: int) -> list[tuple[int, Trade, int]]:
        """What there is to do in the step that ends with unit `end`, the best first: the place in `needs`, the trade,
        and bytes."""
        rows = self.trades.get(end) or [{DEFAULT: need} for need in self.needs[end]]
        return [(place, trade, need) for place, row in enumerate(rows) for trade, need in row.items()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clients:
    """A fleet in columns, a row a client.

    Attributes:
        budgets: what they may use, in bytes, [n].
        kinds: the positions of their kinds, [n].
        runs: their names, where those are counted; else `names`, one by one.
    """

    budgets: Bytes
    kinds: NDArray[np.int64]
    runs: tuple[NameRun, ...] = ()
    names: tuple[str, ...] = ()


class FleetClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Clients of one kind that do the same in every step.

    Attributes:
        kind: the name of their kind of device.
        clients: how many they are.
        least_budget_bytes, most_budget_bytes: what they may use, the smallest and the largest of them.
        works: what they do in each step, None where they have no work.
        promised_bytes: what that is promised to need.
        trades: in which of its variants they do it; the default ones where there are none.
    """

    kind: str
    clients: int
    least_budget_bytes: int
    most_budget_bytes: int
    works: tuple[Growing | None, ...]
    promised_bytes: tuple[int | None, ...]
    trades: tuple[Trade, ...] = ()

    def trade(self, step: int) -> Trade:
        """Of the work in one step (0-based)."""
        return self.trades[step] if self.trades else DEFAULT


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plan as it is kept in a file.

    `with_one_more` is what the best cut with one more step would be. `class_of` has the position of each client's
    class, as little-endian numbers of 4 bytes (Base64 in JSON). Clients are in the order of their names, which are
    counted in `runs` or listed in `names`.
    """

    TITLE: ClassVar[str] = "fleet plan"

    format_version: int = FORMAT_VERSION
    steps: Steps
    with_one_more: Steps | None = None
    classes: tuple[FleetClass, ...]
    class_of: bytes
    runs: tuple[NameRun, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def works(self) -> tuple[Growing, ...]:
        """All the work that some client does, each once."""
        return tuple(dict.fromkeys(work for work, _ in self.programs))

    @property
    def programs(self) -> tuple[tuple[Growing, Trade], ...]:
        """The same in the variants in which it is done."""
        done = (
            (work, one.trade(step)) for one in self.classes for step, work in enumerate(one.works) if work is not None
        )
        return tuple(dict.fromkeys(done))

    @property
    def column(self) -> NDArray[np.uint32]:
        """`class_of` as numbers, [clients]."""
        return np.frombuffer(self.class_of, _COLUMN)

    def class_named(self, client: str) -> FleetClass:
        """What a client does; raises UsageError where there is none of that name."""
        return self.classes[int(self.column[self._position(client)])]

    def _position(self, client: str) -> int:
        before = 0
        for run in self.runs:
            number = client.removeprefix(run.prefix)
            if number.isdecimal() and int(number) < run.count and client == run.name(int(number)):
                return before + int(number)
            before += run.count
        if client not in self.names:
            there = self.names or [run.name(number) for run in self.runs if run.count for number in (0, run.count - 1)]
            raise no_client(client, there)
        return self.names.index(client)

    def check(self, source: str) -> None:
        """Raise FormatError, naming `source`, where the plan contradicts itself."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(f"{source}: format_version {self.format_version} is not known here")
        if len(self.class_of) % _COLUMN.itemsize:
            raise FormatError(f"{source}: class_of holds no whole numbers")
        counts = np.bincount(self.column, minlength=len(self.classes))
        if counts.tolist() != [kind.clients for kind in self.classes]:
            raise FormatError(f"{source}: class_of does not have the clients that classes have")
        if (len(self.names) or sum(run.count for run in self.runs)) != len(self.column):
            raise FormatError(f"{source}: class_of has {len(self.column)} clients, which is not the number of names")
        steps = len(self.steps.steps)
        if any(
            len(kind.works) != steps or len(kind.promised_bytes) != steps or len(kind.trades) not in (0, steps)
            for kind in self.classes
        ):
            raise FormatError(f"{source}: classes must have something for each of {steps} steps")


def plan_fleet(
    kinds: Sequence[Kind],
    clients: Clients,
    units: int,
    *,
    coverage: float | None,
    most: int | None = None,
    count: int | None = None,
    given: Partition | None = None,
    exact: Callable[[Partition], Sequence[Kind]] | None = None,
    compared: bool = True,
    pace: Pace | None = None,
) -> FleetPlan:
    """Choose the steps of a model of `units` units, and give every client the most that it holds in each.

    `coverage`, `most`, `count`, `pace` and errors are those of `choose_steps`. With `given`, its blocks are the steps.
    `exact` says what each kind needs in the steps that were chosen, where what lies behind a step may be several blocks
    and clients may have further trades; by default that is taken from `kinds`. `compared`: with what one more step
    would bring.
    """
    rows = _rows_by_kind(clients.kinds, len(kinds))
    there = [(kind, own) for kind, own in zip(kinds, rows, strict=True) if len(own)]
    groups = groups_of(kinds, clients)
    if given is None:
        steps = choose_steps(groups, units, coverage=coverage, most=most, count=count, pace=pace)
    else:
        steps = given_steps(groups, [block.last_unit for block in given.blocks], coverage=coverage, pace=pace)
    more = one_more(groups, steps) if compared else None
    if exact is not None:
        kinds = exact(steps.partition)
        there = [(kind, own) for kind, own in zip(kinds, rows, strict=True) if len(own)]
    classes: list[FleetClass] = []
    class_of = np.empty(len(clients.budgets), _COLUMN)
    for (kind, own), group in zip(there, groups, strict=True):
        found = list(_classes(kind, group, steps))
        least = np.array([one.least_budget_bytes for one in found])
        class_of[own] = len(classes) + np.searchsorted(least, clients.budgets[own], side="right") - 1
        classes += found
    return FleetPlan(
        steps=steps,
        with_one_more=more,
        classes=tuple(classes),
        class_of=class_of.tobytes(),
        runs=clients.runs,
        names=clients.names,
    )


def groups_of(kinds: Sequence[Kind], clients: Clients) -> list[Group]:
    """The clients by kind, without the kinds that nobody is of."""
    rows = _rows_by_kind(clients.kinds, len(kinds))
    return [
        Group.of(
            clients.budgets[own],
            kind.needs,
            kind.seconds,
            tried={end: [need for _, _, need in kind.options(end)] for end in kind.needs},
        )
        for kind, own in zip(kinds, rows, strict=True)
        if len(own)
    ]


def _rows_by_kind(kinds: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(kinds, kind="stable")
    return np.split(order, np.searchsorted(kinds[order], np.arange(1, count)))


def _classes(kind: Kind, group: Group, steps: Steps) -> Iterator[FleetClass]:
    """Of one group, by rising budgets: more memory never means less work, so that a class is a range of budgets."""
    options = [kind.options(step.last_unit) for step in steps.steps]
    needs = [np.array([need for _, _, need in row], np.int64) for row in options]
    held = np.stack([first_held(row, group.budgets) for row in needs])
    starts = np.flatnonzero(np.concatenate([[True], np.any(held[:, 1:] != held[:, :-1], axis=0)]))
    ends = np.append(starts[1:], len(group.budgets))
    counts = np.add.reduceat(group.counts, starts)
    works = [suffixes(steps.partition, number) for number in range(1, len(needs) + 1)]
    for start, end, count in zip(starts.tolist(), ends.tolist(), counts.tolist(), strict=True):
        does = [row[at] if at < len(row) else None for row, at in zip(options, held[:, start].tolist(), strict=True)]
        trades = tuple(DEFAULT if one is None else one[1] for one in does)
        yield FleetClass(
            kind=kind.name,
            clients=count,
            least_budget_bytes=int(group.budgets[start]),
            most_budget_bytes=int(group.budgets[end - 1]),
            works=tuple(None if one is None else own[one[0]] for own, one in zip(works, does, strict=True)),
            promised_bytes=tuple(None if one is None else one[2] for one in does),
            trades=trades if any(trade != DEFAULT for trade in trades) else (),
        )
