"""The planner: from profiles to what every client does in every step and distillation, with its promise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

import msgspec

from device_profiles.contract import CACHED_PREFIX_VARIANT
from device_profiles.errors import FormatError
from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.plan import ClientPlan, Plan, StepPlan
from device_profiles.predict import predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import DEFAULT_MARGIN, promise_of, promise_of_prediction
from device_profiles.work import (
    Distill,
    Growing,
    Head,
    Joint,
    ProgramWork,
    block_of,
    blocks_of,
    distill,
    grow,
    label,
    suffixes,
)
from edge_runtime.device.worker.text import megabytes_up

Trained = Growing | Distill


class Programs(Protocol):
    """What a plan needs of a manifest, or of programs that were planned and not written."""

    @property
    def partition(self) -> Partition:
        """The steps, as blocks."""

    @property
    def programs(self) -> Sequence[Program]:
        """Those that clients may be asked for, among others."""


def make_plan(
    manifest: Programs,
    bundle_sha256: str,
    profiles: Mapping[str, DeviceProfile],
    *,
    margin: float = DEFAULT_MARGIN,
    joint: bool = False,
    examples: Mapping[str, int] | None = None,
) -> Plan:
    """Plan every step of a bundle for the clients in `profiles` (by name; their limits are the budgets), and every
    distillation where one of the profiles has them.

    A client trains the active block when its promise fits its limit. With `joint`, and where the bundle has programs of
    runs of units that are no blocks, it trains the longest run that ends with the block and fits, of those that the
    bundle has. A promise is that of the measured peak where the profile has it, else of what is predicted from the
    program's plan and the profile, which may be of any bundle; `examples` are those that each client has.

    Raises FormatError where a profile has no limit.
    """
    partition = manifest.partition
    promises = _Promises(manifest, bundle_sha256, margin, examples or {})
    choices = _choices(manifest, _works_in(profiles.values(), bundle_sha256), joint=joint)
    steps = [_step(works, partition, profiles, promises) for works in choices]
    measured = {cost.work for profile in profiles.values() for cost in profile.costs}
    taught = [work for work in (distill(partition, block.index) for block in partition.blocks) if work in measured]
    distilled = [_step([work], partition, profiles, promises) for work in taught]
    best = tuple(_most_demanding(plans) for plans in zip(*(step.clients for step in steps), strict=True))
    return Plan(
        bundle_sha256=bundle_sha256,
        margin=margin,
        partition=partition,
        participation=_share(best),
        clients=best,
        steps=tuple(steps),
        distillations=tuple(distilled),
    )


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A program that a client could be asked for, and the plan of it."""

    program: str
    plan: ClientPlan


def candidates_of(
    manifest: Programs,
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
    partition = manifest.partition
    promises = _Promises(manifest, bundle_sha256, margin, {client: examples})
    choices = _choices(manifest, _works_in([profile], bundle_sha256), joint=joint)
    return [
        [
            Candidate(program=label(work, partition), plan=plan)
            for work, plan in zip(works, _assigned(works, client, profile, partition, promises), strict=True)
        ]
        for works in choices
    ]


def promises_on(
    manifest: Programs,
    bundle_sha256: str,
    client: str,
    profile: DeviceProfile,
    *,
    margin: float = DEFAULT_MARGIN,
    examples: int = 0,
) -> dict[str, int]:
    """Bytes that one client is promised to need for each training program of a bundle that runs there, by the name of
    the work."""
    promises = _Promises(manifest, bundle_sha256, margin, {client: examples})
    found = {}
    for program in manifest.programs:
        if isinstance(program.work, (Growing, Distill)) and program.variant != CACHED_PREFIX_VARIANT:
            promise = promises.of(program.work, program.name, client, profile)
            if promise.bytes is not None and not promise.reason:
                found[program.work.name] = promise.bytes
    return found


def seconds_on(manifest: Programs, bundle_sha256: str, profile: DeviceProfile) -> dict[str, float]:
    """Seconds that one client takes for a step of each training program of a bundle, by the name of the work: measured
    (the median), else predicted; without those that nobody knows."""
    found = {}
    for program in manifest.programs:
        if isinstance(program.work, (Growing, Distill)) and program.variant != CACHED_PREFIX_VARIANT:
            cost = profile.cost(program.name) if profile.bundle_sha256 == bundle_sha256 else None
            seconds = None if cost is None else cost.step_seconds_median
            if seconds is None:
                try:
                    seconds = predict(program, profile).seconds_per_step
                except FormatError:
                    continue
            if seconds is not None:
                found[program.work.name] = seconds
    return found


def _works_in(profiles: Iterable[DeviceProfile], bundle_sha256: str) -> set[ProgramWork]:
    """What was measured of the bundle."""
    own = (profile for profile in profiles if profile.bundle_sha256 == bundle_sha256)
    return {cost.work for profile in own for cost in profile.costs}


def _choices(manifest: Programs, measured: Set[ProgramWork], *, joint: bool) -> list[list[Trained]]:
    """What a client may train in each step, the best first: of the programs that there are, or that were measured."""
    partition = manifest.partition
    known: set[ProgramWork] = {program.work for program in manifest.programs}
    if not joint and not any(_is_no_block(work, partition) for work in known):
        return [[grow(partition, block.index)] for block in partition.blocks]
    known |= measured
    runs = [[work for work in suffixes(partition, block.index) if work in known] for block in partition.blocks]
    return [list(works) or [grow(partition, block)] for block, works in enumerate(runs, start=1)]


def _is_no_block(work: ProgramWork, partition: Partition) -> bool:
    """Whether it is a training step of other units than those of blocks."""
    return isinstance(work, Head) or (isinstance(work, Joint) and blocks_of(work, partition) is None)


def budget_of(client: str, profile: DeviceProfile) -> int:
    """What a client may use, in bytes; raises FormatError where its profile does not say."""
    budget = profile.device.budget_bytes
    if budget is None:
        raise FormatError(f"profile of {client}: neither limit_bytes nor memory_available_bytes is known")
    return budget


class _Promise(NamedTuple):
    """Promised bytes, None where there is no promise; why the work cannot be done, empty where it can; and whether it
    was measured on the device."""

    bytes: int | None
    reason: str
    measured: bool


class _Promises:
    """What a piece of work needs of a device: measured if it was, else predicted."""

    def __init__(self, manifest: Programs, bundle_sha256: str, margin: float, examples: Mapping[str, int]) -> None:
        self._bundle_sha256 = bundle_sha256
        self._margin = margin
        self._examples = examples
        self._programs = {
            program.work: program for program in manifest.programs if program.variant != CACHED_PREFIX_VARIANT
        }

    def of(self, work: Trained, name: str, client: str, profile: DeviceProfile) -> _Promise:
        """What `work`, which the profile calls `name`, needs of the client."""
        cost = profile.cost(name) if profile.bundle_sha256 == self._bundle_sha256 else None
        if cost is not None:
            return _Promise(promise_of(cost, self._margin), "" if cost.fits else cost.reason or "does not fit", True)
        program = self._programs.get(work)
        if program is None:
            return _Promise(None, f"{name} is not in the bundle", False)
        try:
            prediction = predict(program, profile, examples=self._examples.get(client, 0))
        except FormatError as error:
            return _Promise(None, f"{name} cannot be predicted: {error}", False)
        return _Promise(promise_of_prediction(prediction, self._margin), "", False)


def _step(
    choices: Sequence[Trained], partition: Partition, profiles: Mapping[str, DeviceProfile], promises: _Promises
) -> StepPlan:
    block = block_of(choices[-1], partition)
    plans = tuple(_first_held(choices, name, profile, partition, promises) for name, profile in profiles.items())
    return StepPlan(block=block, participation=_share(plans), clients=plans)


def _first_held(
    choices: Sequence[Trained], client: str, profile: DeviceProfile, partition: Partition, promises: _Promises
) -> ClientPlan:
    """The first of `choices` that fits, or why the last one does not."""
    last = None
    for last in _assigned(choices, client, profile, partition, promises):
        if last.fits:
            break
    assert last is not None  # there is a choice
    return last


def _assigned(
    choices: Sequence[Trained], client: str, profile: DeviceProfile, partition: Partition, promises: _Promises
) -> Iterator[ClientPlan]:
    """Each of `choices` as the client's work, or why it does not fit."""
    block = block_of(choices[-1], partition)
    budget = budget_of(client, profile)
    for work in choices:
        name = label(work, partition)
        promise = promises.of(work, name, client, profile)
        reason = promise.reason
        if not reason and promise.bytes is not None and promise.bytes > budget:
            reason = f"needs {megabytes_up(promise.bytes)}, may use {budget / 2**20:.1f} MB"
        yield ClientPlan(
            client=client,
            block=block,
            work=None if reason else work,
            program=None if reason else name,
            predicted_peak_bytes=promise.bytes,
            budget_bytes=budget,
            fits=not reason,
            reason=reason or None,
            measured=promise.measured,
        )


def _share(plans: tuple[ClientPlan, ...]) -> float:
    return sum(plan.fits for plan in plans) / len(plans) if plans else 0.0


def _most_demanding(own: Sequence[ClientPlan]) -> ClientPlan:
    """Of one client's plans, the one with the largest promise: of those that it holds, if there are any."""
    fitting = [plan for plan in own if plan.fits]
    return max(fitting or own, key=lambda plan: plan.predicted_peak_bytes or 0)
