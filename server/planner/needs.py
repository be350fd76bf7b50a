"""What the runs of a model's units need on the devices of a fleet: predicted from programs' plans and from profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_profiles.errors import FormatError
from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.predict import calibrate, predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import promise_of_prediction
from server.planner.fleet_plan import Clients, Kind
from server.planner.run_programs import NEVER, RunPrograms

Needs = dict[int, list[int]]
"""Promised bytes by the last unit of a step: of its suffixes, the longest first, and of the output module alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfiledFleet:
    """Devices by their profiles, those alike together.

    Attributes:
        kinds: what each kind of device needs in every step that there could be.
        clients: the devices.
        exact: the needs of each kind in the steps of a partition.
    """

    kinds: tuple[Kind, ...]
    clients: Clients
    exact: Callable[[Partition], list[Needs]]


def profiled_fleet(
    programs: RunPrograms,
    profiles: Mapping[str, DeviceProfile],
    *,
    margin: float,
    examples: Mapping[str, int] | None = None,
) -> ProfiledFleet:
    """The devices of `profiles`, by name, with `examples` each, to be planned for.

    A device can do nothing where its profile predicts nothing: where no training program that was measured fitted, or
    another runtime was measured. Raises FormatError where a profile has no limit.
    """
    alike: dict[object, list[str]] = {}
    for name, profile in profiles.items():
        alike.setdefault(_likeness(profile, (examples or {}).get(name, 0)), []).append(name)
    first = [(profiles[names[0]], (examples or {}).get(names[0], 0)) for names in alike.values()]

    def needs(planned: Mapping[int, Sequence[Program | None]]) -> list[Needs]:
        return [
            {end: [_promise(program, profile, margin, count) for program in row] for end, row in planned.items()}
            for profile, count in first
        ]

    rows = [(name, kind) for kind, names in enumerate(alike.values()) for name in names]
    return ProfiledFleet(
        kinds=tuple(
            Kind(name=names[0] if len(names) == 1 else f"like {names[0]}", needs=own)
            for names, own in zip(alike.values(), needs(programs.ends()), strict=True)
        ),
        clients=Clients(
            budgets=np.array([_budget(profiles[name], name) for name, _ in rows], np.int64),
            kinds=np.array([kind for _, kind in rows], np.int64),
            names=tuple(name for name, _ in rows),
        ),
        exact=lambda partition: needs(programs.suffixes(partition)),
    )


def _likeness(profile: DeviceProfile, examples: int) -> object:
    """The same for profiles that predict the same; of one that predicts nothing, nothing else counts."""
    try:
        known = calibrate(profile.costs) if profile.runtime == "native" else None
    except FormatError:
        known = None
    return known and (known, profile.measurement.threads, examples)


def _promise(program: Program | None, profile: DeviceProfile, margin: float, examples: int) -> int:
    if program is None:
        return NEVER
    try:
        return promise_of_prediction(predict(program, profile, examples=examples), margin)
    except FormatError:
        return NEVER


def _budget(profile: DeviceProfile, name: str) -> int:
    budget = profile.device.budget_bytes
    if budget is None:
        raise FormatError(f"profile of {name}: neither limit_bytes nor memory_available_bytes is known")
    return budget
