"""What the runs of a model's units need on the devices of a fleet: predicted from programs' plans and from profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_profiles.errors import FormatError
from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.predict import Calibration, Prediction, calibrate, predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import promise_of_prediction
from server.planner.fleet_plan import Clients, Kind
from server.planner.planner import budget_of
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
    counts = examples or {}
    alike: dict[object, list[str]] = {}
    for name, profile in profiles.items():
        alike.setdefault(_likeness(profile, counts.get(name, 0)), []).append(name)
    devices = [
        _Device(profile=profiles[names[0]], known=_calibration(profiles[names[0]]), examples=counts.get(names[0], 0))
        for names in alike.values()
    ]

    def predicted(device: _Device, planned: _Planned) -> dict[int, list[Prediction | None]]:
        return {end: [device.predict(program) for program in row] for end, row in planned.items()}

    def needs(found: Mapping[int, Sequence[Prediction | None]]) -> Needs:
        return {
            end: [NEVER if one is None else promise_of_prediction(one, margin) for one in row]
            for end, row in found.items()
        }

    rows = [(name, kind) for kind, names in enumerate(alike.values()) for name in names]
    planned = programs.ends()
    ends = [predicted(device, planned) for device in devices]

    def exact(partition: Partition) -> list[Needs]:
        own = programs.suffixes(partition)
        return [needs(predicted(device, own)) for device in devices]

    return ProfiledFleet(
        kinds=tuple(
            Kind(name=names[0] if len(names) == 1 else f"like {names[0]}", needs=needs(own), seconds=_seconds(own))
            for names, own in zip(alike.values(), ends, strict=True)
        ),
        clients=Clients(
            budgets=np.array([budget_of(name, profiles[name]) for name, _ in rows], np.int64),
            kinds=np.array([kind for _, kind in rows], np.int64),
            names=tuple(name for name, _ in rows),
        ),
        exact=exact,
    )


_Planned = Mapping[int, Sequence[Program | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Device:
    """One kind of device; `known` is what its profile says of all programs, None where that is nothing."""

    profile: DeviceProfile
    known: Calibration | None
    examples: int

    def predict(self, program: Program | None) -> Prediction | None:
        """None for what no program trains, and where nothing is known."""
        if program is None or self.known is None:
            return None
        return predict(program, self.profile, examples=self.examples, calibration=self.known)


def _calibration(profile: DeviceProfile) -> Calibration | None:
    try:
        return calibrate(profile.costs) if profile.runtime == "native" else None
    except FormatError:
        return None


def _likeness(profile: DeviceProfile, examples: int) -> tuple[str, int, int] | None:
    """The same for profiles that predict the same; of one that predicts nothing, nothing else counts."""
    known = _calibration(profile)
    return None if known is None else (repr(known), profile.measurement.threads, examples)


def _seconds(found: Mapping[int, Sequence[Prediction | None]]) -> dict[int, list[float]]:
    """Of a step, by its last unit; without the ends of which nobody knows all."""
    rows = {end: [0.0 if one is None else one.seconds_per_step for one in row] for end, row in found.items()}
    known = {end: [seconds for seconds in row if seconds is not None] for end, row in rows.items()}
    return {end: row for end, row in known.items() if len(row) == len(rows[end])}
