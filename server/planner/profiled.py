"""The devices of a fleet as a plan sees them: kinds of devices that are alike in all that their profiles say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from device_profiles.model import Partition
from device_profiles.profile import DeviceProfile
from device_profiles.work import Growing, suffixes
from server.fleet.population import no_client
from server.planner.choices import NEVER, Choice, Device, Trained, budget_of, in_order
from server.planner.fleet_plan import Clients, Kind
from server.planner.holding import first_held
from server.planner.menus import Course, Menu, step_alone
from server.planner.pace import Pace

Row = list[list[Choice]]
"""Of one step: the choices of each of its suffixes, the longest first, and of the output module alone."""


class ProfiledFleet:
    """Devices by their profiles, those alike together.

    Args:
        kinds: the devices of each kind by name, with their budgets in bytes.
        menu: what they can be asked for.
        devices: one for each kind.
        pace: what makes a round; without one, a round is a step of training.

    Attributes:
        clients: the devices in columns.
    """

    def __init__(
        self, menu: Menu, devices: Sequence[Device], kinds: Sequence[Mapping[str, int]], pace: Pace | None = None
    ) -> None:
        self._menu = menu
        self._pace = pace
        self._devices = tuple(devices)
        self._names = tuple(next(iter(own)) if len(own) == 1 else f"like {next(iter(own))}" for own in kinds)
        self.clients = Clients(
            budgets=np.array([budget for own in kinds for budget in own.values()], np.int64),
            kinds=np.repeat(np.arange(len(kinds)), [len(own) for own in kinds]),
            names=tuple(name for own in kinds for name in own),
        )
        self._rows: dict[Partition, list[dict[int, Row]]] = {}

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """What each kind of device needs in every step that there could be.

        Recomputation counts in the step that ends with the model, where it may spare a cut.
        """
        ends = self._menu.ends()
        last = max(ends)
        rows = [{end: _row(device, course) for end, course in ends.items()} for device in self._devices]
        for number, own in enumerate(rows):
            self._lighten(number, own[last], step_alone(last, last + 1), 1)
        return self._kinds(rows)

    def exact(self, partition: Partition) -> list[Kind]:
        """What each kind needs in the steps of a partition."""
        return list(self._kinds(self._exact(partition)))

    def _kinds(self, rows: Sequence[Mapping[int, Row]]) -> tuple[Kind, ...]:
        return tuple(
            _kind(name, own, _seconds(own, self._pace, device.examples))
            for name, own, device in zip(self._names, rows, self._devices, strict=True)
        )

    def budget(self, client: str) -> int:
        """Bytes that a device may use."""
        return int(self.clients.budgets[self.position(client)])

    def choices(self, client: str, partition: Partition) -> list[list[Choice]]:
        """Everything that one device could be asked for, by step, the best first."""
        rows = self._exact(partition)[self._kind_of(client)]
        return [[choice for own in rows[block.last_unit] for choice in own] for block in partition.blocks]

    def device(self, client: str) -> Device:
        """What is known of one device."""
        return self._devices[self._kind_of(client)]

    def _exact(self, partition: Partition) -> list[dict[int, Row]]:
        if partition not in self._rows:
            courses = self._menu.courses(partition)
            found = [{end: _row(device, course) for end, course in courses.items()} for device in self._devices]
            for number, own in enumerate(found):
                for block in partition.blocks:
                    self._lighten(number, own[block.last_unit], partition, block.index)
            self._rows[partition] = found
        return self._rows[partition]

    def _lighten(self, kind: int, row: Row, partition: Partition, block: int) -> None:
        """Add recomputation to the choices of one step, where devices of the kind gain by it.

        Those that hold the same suffix are looked at together: if one of them holds the next longer one with
        recomputation, that is a choice for all, and so on. What they hold in no exact trade may be held in this one.
        """
        budgets = self.clients.budgets[self.clients.kinds == kind]
        works = suffixes(partition, block)
        held = first_held(np.array([_least(own) for own in row], np.int64), budgets)
        for place in np.unique(held).tolist():
            own = budgets[held == place]
            if place < len(row) and row[place][0].needs > int(own.min()):
                self._recompute(kind, row[place], works[place], partition)
            for longer in range(place - 1, -1, -1):
                if row[longer] and not self._recompute(kind, row[longer], works[longer], partition):
                    break
                if row[longer] and _least(row[longer]) > int(own.max()):
                    break

    def _recompute(self, kind: int, choices: list[Choice], work: Growing, partition: Partition) -> bool:
        """Add recomputation to the choices of one piece of work; whether it is there."""
        if not any(choice.offer.trade == "recompute" for choice in choices):
            offer = self._menu.lighter(work, partition)
            if offer is None:
                return False
            choices[:] = in_order([*choices, self._devices[kind].choice(offer)])
        return True

    def _kind_of(self, client: str) -> int:
        return int(self.clients.kinds[self.position(client)])

    def position(self, client: str) -> int:
        """Of a device among `clients`; raises UsageError where there is none of that name."""
        try:
            return self._positions[client]
        except KeyError:
            raise no_client(client, self.clients.names) from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.clients.names)}


class Gathering:
    """Profiles, one after the other; what is kept of them is one for each kind of device.

    Args:
        bundle_sha256: the bundle that is planned for, empty where there is none.
        examples: that each device has, by name.
    """

    def __init__(self, bundle_sha256: str, *, margin: float, examples: Mapping[str, int] | None = None) -> None:
        self._bundle_sha256 = bundle_sha256
        self._margin = margin
        self._examples = examples or {}
        self._devices: dict[object, Device] = {}
        self._alike: dict[object, dict[str, int]] = {}
        self._kind_of: dict[str, object] = {}

    def add(self, name: str, profile: DeviceProfile) -> None:
        """Take the profile of a device, instead of an earlier one of the same; raises FormatError where it has no
        limit."""
        device = Device(profile, self._bundle_sha256, margin=self._margin, examples=self._examples.get(name, 0))
        likeness, budget = device.likeness, budget_of(name, profile)
        before = self._kind_of.get(name)
        if before is not None:
            del self._alike[before][name]
            if not self._alike[before]:
                del self._alike[before], self._devices[before]
        self._kind_of[name] = likeness
        self._devices.setdefault(likeness, device)
        self._alike.setdefault(likeness, {})[name] = budget

    @property
    def names(self) -> tuple[str, ...]:
        """Of the devices, in the order in which they came."""
        return tuple(self._kind_of)

    @property
    def works(self) -> frozenset[Trained]:
        """What some device has measured of the bundle."""
        return frozenset(work for device in self._devices.values() for work in device.works)

    def fleet(self, menu: Menu, pace: Pace | None = None) -> ProfiledFleet:
        """The devices, to be planned for."""
        return ProfiledFleet(menu, list(self._devices.values()), list(self._alike.values()), pace)


def profiled_fleet(
    menu: Menu,
    profiles: Mapping[str, DeviceProfile],
    *,
    margin: float,
    examples: Mapping[str, int] | None = None,
    pace: Pace | None = None,
) -> ProfiledFleet:
    """The devices of `profiles`, by name, with `examples` each.

    A device can do nothing where its profile predicts nothing: where no training program that was measured fitted, or
    another runtime was measured. Raises FormatError where a profile has no limit.
    """
    gathered = Gathering("", margin=margin, examples=examples)
    for name, profile in profiles.items():
        gathered.add(name, profile)
    return gathered.fleet(menu, pace)


def _row(device: Device, course: Course) -> Row:
    return [in_order([device.choice(offer) for offer in offers]) for offers in course]


def _least(choices: Iterable[Choice]) -> int:
    return min((choice.needs for choice in choices), default=NEVER)


def _kind(name: str, rows: Mapping[int, Row], seconds: Mapping[int, Sequence[float]]) -> Kind:
    return Kind(
        name=name,
        needs={end: [_least(own) for own in row] for end, row in rows.items()},
        seconds=seconds,
        trades={
            end: [{choice.offer.trade: choice.needs for choice in own} for own in row] for end, row in rows.items()
        },
    )


def _seconds(rows: Mapping[int, Row], pace: Pace | None, examples: int) -> dict[int, list[float]]:
    """Of a round of a step, by its last unit, of each choice in order; without the ends of which nobody knows all."""
    known: dict[int, list[float]] = {}
    for end, row in rows.items():
        choices = [choice for own in row for choice in own]
        seconds = [0.0 if choice.needs == NEVER else _round_seconds(choice, pace, examples) for choice in choices]
        there = [value for value in seconds if value is not None]
        if len(there) == len(choices):
            known[end] = there
    return known


def _round_seconds(choice: Choice, pace: Pace | None, examples: int) -> float | None:
    if choice.seconds is None or pace is None:
        return choice.seconds
    return pace.round_seconds(choice.seconds, choice.offer.plan, examples)
