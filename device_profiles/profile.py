"""A device profile: what training each program of one bundle costs on one device, measured."""

from __future__ import annotations

import msgspec

from device_profiles.contract import FORMAT_VERSION, LimitKind, Purpose, Runtime
from device_profiles.errors import FormatError


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hardware and operating system; `None` is unknown, never a guess."""

    name: str
    architecture: str
    kernel: str
    cpu_model: str | None = None
    cpu_count: int | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    limit_bytes: int | None = None
    limit_kind: LimitKind = "none"
    accelerator: str | None = None
    accelerator_memory_bytes: int | None = None
    battery_percent: float | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the numbers were taken: a fresh process for each program, `repetitions` processes of `steps` steps."""

    repetitions: int
    steps: int
    warmup_steps: int
    threads: int
    measured_at: str


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one program costs. Bytes of the whole process; seconds of one step.

    `predicted_peak_bytes` = `base_bytes` + arena + frozen + workspace + staging. `measured_peak_bytes` is VmHWM of
    the training process, `None` when it did not fit. `unexplained_bytes` = measured - predicted.
    """

    program: str
    purpose: Purpose
    block: int
    fits: bool
    predicted_peak_bytes: int
    measured_peak_bytes: int | None
    base_bytes: int
    arena_bytes: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_state_bytes: int
    activations_bytes: int
    temporaries_bytes: int
    frozen_bytes: int
    workspace_bytes: int
    staging_bytes: int
    unexplained_bytes: int | None = None
    step_seconds_median: float | None = None
    step_seconds_minimum: float | None = None
    step_seconds_maximum: float | None = None
    prefix_seconds: float | None = None
    reason: str | None = None


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One JSON file per device, model and runtime. `bundle_sha256` is the digest of the bundle's manifest."""

    format_version: int = FORMAT_VERSION
    device: Device
    software: dict[str, str]
    runtime: Runtime
    model: str
    bundle_sha256: str
    measurement: Measurement
    costs: tuple[Cost, ...]

    def cost(self, program: str) -> Cost | None:
        """The cost of `program`, or None when it was not measured."""
        return next((c for c in self.costs if c.program == program), None)

    def check(self, source: str) -> None:
        """Raise FormatError, naming `source` and the field, where the profile contradicts itself."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"{source}: format_version {self.format_version} is not known here (this release reads "
                f"{FORMAT_VERSION})"
            )
        for cost in self.costs:
            where = f"{source}: costs: {cost.program}"
            for field, value in msgspec.structs.asdict(cost).items():
                if field.endswith("_bytes") and field != "unexplained_bytes" and value is not None and value < 0:
                    raise FormatError(f"{where}: {field} is negative")
                if "seconds" in field and value is not None and not 0 <= value < float("inf"):
                    raise FormatError(f"{where}: {field} is not a duration")
            parts = cost.base_bytes + cost.arena_bytes + cost.frozen_bytes + cost.workspace_bytes + cost.staging_bytes
            if parts != cost.predicted_peak_bytes:
                raise FormatError(
                    f"{where}: predicted_peak_bytes is {cost.predicted_peak_bytes}, its parts are {parts}"
                )
            if cost.fits and cost.measured_peak_bytes is None:
                raise FormatError(f"{where}: fits, but measured_peak_bytes is missing")
