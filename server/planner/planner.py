"""What each client does in every step and distillation of a bundle, with its promise: made from a fleet's plan, client
by client, for its `plan.json` and for the engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from device_profiles.model import Partition
from device_profiles.plan import ClientPlan, Plan, StepPlan
from device_profiles.profile import DeviceProfile
from device_profiles.promise import DEFAULT_MARGIN
from device_profiles.work import block_of
from server.fleet.client import Client
from server.planner.choices import NEVER, Choice, Offer, Trained
from server.planner.fleet_plan import FleetPlan, plan_fleet
from server.planner.menus import BundleMenu, Programs
from server.planner.profiled import Gathering, ProfiledFleet


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A program that a client could be asked for, and the plan of it."""

    program: str
    plan: ClientPlan
    seconds: float | None = None


class BundlePlan:
    """The plan of a bundle's programs for devices with profiles.

    A client trains the active block when its promise fits its limit. With `joint`, and where the bundle has programs of
    runs of units that are no blocks, it trains the longest run that ends with the block and fits. A promise is that of
    the measured peak where the profile has it, else of what is predicted from the program's plan and the profile.

    Args:
        bundle: the programs.
        gathered: the devices.
        joint: whether runs of blocks are looked at.
    """

    def __init__(self, bundle: Programs, gathered: Gathering, *, joint: bool = False) -> None:
        self._partition = bundle.partition
        self._menu = BundleMenu(bundle, joint=joint, measured=gathered.works)
        self._there = gathered.fleet(self._menu)
        self._fleet = plan_fleet(
            self._there.kinds,
            self._there.clients,
            self._partition.blocks[-1].last_unit + 1,
            coverage=0.0,
            given=self._partition,
            compared=False,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the devices."""
        return self._there.clients.names

    def document(self, bundle_sha256: str, margin: float, names: Sequence[str] | None = None) -> Plan:
        """What all devices, or those of these names, do in each step, and in every distillation that some of them have
        measured."""
        names = self.names if names is None else names
        steps = _steps(self._fleet, self._there, names)
        distilled = [
            _step_plan(block, [self._distilling(offer, block, name) for name in names])
            for offer in self._menu.distillations()
            for block in (block_of(offer.work, self._partition),)
        ]
        best = tuple(_most_demanding(plans) for plans in zip(*(step.clients for step in steps), strict=True))
        return Plan(
            bundle_sha256=bundle_sha256,
            margin=margin,
            partition=self._partition,
            participation=_share(best),
            clients=best,
            steps=tuple(steps),
            distillations=tuple(distilled),
        )

    def candidates(self, client: str) -> list[list[Candidate]]:
        """Everything that one client could be asked for."""
        return candidates_in(self._there, self._partition, client)

    def client(self, name: str, examples: int) -> Client:
        """One device as an engine knows it: all the training programs of the bundle that run there, in the trade in
        which it does them."""
        budget = self._there.budget(name)
        taken = {work: _taken(choices, budget) for work, choices in self._choices(name).items()}
        return Client(
            name=name,
            budget_bytes=budget,
            needs={work.name: choice.needs for work, choice in taken.items() if choice.needs < NEVER},
            examples=examples,
            step_seconds={work.name: choice.seconds for work, choice in taken.items() if choice.seconds is not None},
            trades={work.name: choice.offer.trade for work, choice in taken.items() if choice.offer.trade != "default"},
        )

    def _distilling(self, offer: Offer, block: int, name: str) -> ClientPlan:
        return self._there.device(name).choice(offer).planned(name, block, self._there.budget(name))

    def _choices(self, name: str) -> dict[Trained, list[Choice]]:
        device = self._there.device(name)
        found: dict[Trained, list[Choice]] = {}
        for offer in self._menu.everything():
            found.setdefault(offer.work, []).append(device.choice(offer))
        return found


def make_plan(
    bundle: Programs,
    bundle_sha256: str,
    profiles: Mapping[str, DeviceProfile],
    *,
    margin: float = DEFAULT_MARGIN,
    joint: bool = False,
    examples: Mapping[str, int] | None = None,
) -> Plan:
    """Plan every step of a bundle for the clients in `profiles` (by name; their limits are the budgets), and every
    distillation where one of the profiles has them. `examples` are those that each client has.

    Raises FormatError where a profile has no limit.
    """
    gathered = _gathered(bundle_sha256, profiles, margin, examples)
    return BundlePlan(bundle, gathered, joint=joint).document(bundle_sha256, margin, list(profiles))


def candidates_of(
    bundle: Programs,
    bundle_sha256: str,
    client: str,
    profile: DeviceProfile,
    *,
    margin: float = DEFAULT_MARGIN,
    joint: bool = False,
    examples: int = 0,
) -> list[list[Candidate]]:
    """Everything that one client could be asked for, by step, the best first, each with its promise or why it cannot
    be done; the first of a step that fits is what `make_plan` gives it."""
    gathered = _gathered(bundle_sha256, {client: profile}, margin, {client: examples})
    return BundlePlan(bundle, gathered, joint=joint).candidates(client)


def candidates_in(there: ProfiledFleet, partition: Partition, client: str) -> list[list[Candidate]]:
    """The same in the steps of a partition, for one of the devices of a fleet."""
    budget = there.budget(client)
    return [
        [
            Candidate(program=choice.offer.program, plan=choice.planned(client, block, budget), seconds=choice.seconds)
            for choice in choices
        ]
        for block, choices in enumerate(there.choices(client, partition), start=1)
    ]


def _gathered(
    bundle_sha256: str, profiles: Mapping[str, DeviceProfile], margin: float, examples: Mapping[str, int] | None
) -> Gathering:
    gathered = Gathering(bundle_sha256, margin=margin, examples=examples)
    for name, profile in profiles.items():
        gathered.add(name, profile)
    return gathered


def _steps(plan: FleetPlan, there: ProfiledFleet, names: Sequence[str]) -> list[StepPlan]:
    partition = plan.steps.partition
    columns = [_client(plan, there, name) for name in names]
    return [_step_plan(block.index, [column[block.index - 1] for column in columns]) for block in partition.blocks]


def _client(plan: FleetPlan, there: ProfiledFleet, name: str) -> list[ClientPlan]:
    """What one client does in each step: what its class does, or why the last of its choices does not fit."""
    own, budget = plan.classes[int(plan.column[there.position(name)])], there.budget(name)
    found = []
    for step, choices in enumerate(there.choices(name, plan.steps.partition)):
        does = (own.works[step], own.trade(step))
        choice = next((c for c in choices if (c.offer.work, c.offer.trade) == does), choices[-1])
        found.append(choice.planned(name, step + 1, budget))
    return found


def _taken(choices: Sequence[Choice], budget: int) -> Choice:
    """The first of the trades of one piece of work that fits; else the one that needs least."""
    return next((c for c in choices if c.needs <= budget), min(choices, key=lambda choice: choice.needs))


def _step_plan(block: int, plans: Sequence[ClientPlan]) -> StepPlan:
    return StepPlan(block=block, participation=_share(plans), clients=tuple(plans))


def _share(plans: Sequence[ClientPlan]) -> float:
    return sum(plan.fits for plan in plans) / len(plans) if plans else 0.0


def _most_demanding(own: Sequence[ClientPlan]) -> ClientPlan:
    """Of one client's plans, the one with the largest promise: of those that it holds, if there are any."""
    fitting = [plan for plan in own if plan.fits]
    return max(fitting or own, key=lambda plan: plan.predicted_peak_bytes or 0)
