"""The plan: a partition, and for each client its program and promised peak."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from device_profiles.contract import FORMAT_VERSION
from device_profiles.model import Partition
from device_profiles.work import Distill, Growing


class ClientPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client does in the step that trains `block`, or distils it into its stand-in.

    `budget_bytes` is the client's hard limit; the promise `predicted_peak_bytes` already carries the safety margin.
    `program` is what its `work` is called in the plan's partition. A client without work has None of both, and a
    `reason`. `measured`: whether the promise is that of a measurement on the device, or of a prediction from its
    profile.
    """

    client: str
    block: int
    work: Growing | Distill | None
    program: str | None
    predicted_peak_bytes: int | None
    budget_bytes: int
    fits: bool
    reason: str | None = None
    measured: bool = True


class StepPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: who trains `block`, or distils it; `participation` is the share of clients with work, in [0, 1]."""

    block: int
    participation: float
    clients: tuple[ClientPlan, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole plan, one StepPlan a block.

    `steps` are of training (growing and shrinking alike), `distillations` those of block 2 and later into their
    stand-ins, where some profile has measured them. `clients` lists, per client, the assignment of the most demanding
    block it can train; `participation` is the share of clients that have work in at least one of `steps`; `margin` is
    the safety margin in every promise.
    """

    TITLE: ClassVar[str] = "plan"

    format_version: int = FORMAT_VERSION
    bundle_sha256: str
    margin: float
    partition: Partition
    participation: float
    clients: tuple[ClientPlan, ...]
    steps: tuple[StepPlan, ...]
    distillations: tuple[StepPlan, ...] = ()
