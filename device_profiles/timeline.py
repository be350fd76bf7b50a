"""Memory over one training step: as it was sampled, and as the program plans it."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from device_profiles.contract import FORMAT_VERSION
from device_profiles.errors import FormatError
from device_profiles.profile_checks import check_plan, check_timeline


class Timeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resident memory of one process, sampled from outside of it: `resident_bytes[i]` at `seconds[i]`.

    Seconds count from the process's start. `step_started_seconds` and `step_ended_seconds` enclose its first step,
    in which every page of the arena is touched for the first time; later steps stay at what the first one reached.
    Only samples where the value changed, and the last of each level, are kept.
    """

    seconds: tuple[float, ...]
    resident_bytes: tuple[int, ...]
    step_started_seconds: float | None = None
    step_ended_seconds: float | None = None


class PlanTimeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of the arena that are alive at each instruction of the program, by what they are.

    `work[i]` is the share of the step's estimated work (multiply-additions and bytes moved) that is done before
    instruction `i`; it places instructions on the axis of time. `touched_bytes` is how far the arena was ever
    touched: what a first step makes resident. Activations are values of the forward pass that the backward pass
    reads; gradients feed an update of parameters; temporaries are all else.
    """

    work: tuple[float, ...]
    parameters_bytes: tuple[int, ...]
    optimizer_state_bytes: tuple[int, ...]
    activations_bytes: tuple[int, ...]
    gradients_bytes: tuple[int, ...]
    temporaries_bytes: tuple[int, ...]
    touched_bytes: tuple[int, ...]


class Timelines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Memory over a step of several programs, by their names.

    A bundle's `timelines.json` has the `planned` ones of all of its programs. `profl-profile run --timelines` writes
    both of what it measured.
    """

    TITLE: ClassVar[str] = "document of timelines"

    format_version: int
    planned: dict[str, PlanTimeline] = {}
    sampled: dict[str, Timeline] = {}

    def check(self, source: str) -> None:
        """Raise FormatError, naming `source`, where a timeline contradicts itself."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"{source}: format_version {self.format_version} is not known here (this release reads "
                f"{FORMAT_VERSION})"
            )
        for name, planned in self.planned.items():
            check_plan(planned, f"{source}: planned: {name}")
        for name, sampled in self.sampled.items():
            check_timeline(sampled, f"{source}: sampled: {name}")
