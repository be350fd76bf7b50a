"""A device profile: what training each program of one bundle costs on one device, measured."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from device_profiles.contract import FORMAT_VERSION, LimitKind, Runtime, Variant
from device_profiles.errors import FormatError
from device_profiles.loads import Loads, check_loads
from device_profiles.manifest import Manifest
from device_profiles.profile_checks import check_cost, check_device, check_profile
from device_profiles.timeline import PlanTimeline, Timeline, Timelines
from device_profiles.work import Grow, ProgramWork


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accelerator, as its driver names it."""

    name: str
    memory_total_bytes: int | None = None
    driver: str | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The hardware and operating system; `None` is unknown, never a guess.

    `cpu_count` is what the process may use (affinity); `cpu_quota` the cores that its control group lets it have,
    `None` where it is not limited. `rlimit_bytes` is the lowest of the address space's and data's limits.
    """

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
    battery_charging: bool | None = None
    cpu_quota: float | None = None
    swap_total_bytes: int | None = None
    rlimit_bytes: int | None = None
    huge_pages: str | None = None
    huge_page_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()

    @property
    def budget_bytes(self) -> int | None:
        """What a training may use: the limit that it was measured under, else the memory that was free."""
        return self.memory_available_bytes if self.limit_bytes is None else self.limit_bytes


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the numbers were taken: a fresh process for each program, `repetitions` processes of `steps` steps."""

    repetitions: int
    steps: int
    warmup_steps: int
    threads: int
    measured_at: str


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the machine did while a program was measured; `None` where the system does not tell.

    Stall times are the growth of `/proc/pressure/{memory,cpu}` (`some`) over the measurement, of the whole machine.
    `throttled` says that the seconds are not those of a cool, free machine; `throttled_because` says why.
    """

    seconds: float
    frequency_hz: float | None = None
    frequency_maximum_hz: float | None = None
    temperature_celsius: float | None = None
    thermal_throttles: int | None = None
    memory_stall_seconds: float | None = None
    cpu_stall_seconds: float | None = None
    battery_percent: float | None = None
    throttled: bool | None = None
    throttled_because: str | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one program costs. Bytes of the whole process; seconds of one step.

    `predicted_peak_bytes` = `base_bytes` + arena + frozen + workspace + staging. `measured_peak_bytes` is VmHWM of
    the training process, the largest of the repetitions, `None` when it did not fit. `unexplained_bytes` = measured
    - predicted. For the runtime `torch`, which has no plan, `arena_bytes` is the sum of the parts that were counted.

    `anonymous_bytes` and `file_bytes` are resident at the largest sample; a control group charges the first, and of the
    second only pages that no other process holds. `proportional_bytes` (PSS) shares
    such pages out. `died_at_bytes` is the charge at which the kernel ended a process that did not fit.

    On an accelerator the parts, the base and the peak are of its memory: the base is the driver's context, the peak
    what NVML charges to the process (where it does not tell, what the allocator reserved), and `host_peak_bytes` is
    the process's VmHWM.

    `loads` are the program's, from which the seconds of other programs are predicted.

    `timeline` and `plan` are in profiles of releases before `Timelines` had a document of their own.
    """

    program: str
    work: ProgramWork
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
    batch: int | None = None
    micro_batch: int | None = None
    variant: Variant = "default"
    instructions: int | None = None
    frozen_tensors: int | None = None
    measured_peak_minimum_bytes: int | None = None
    base_minimum_bytes: int | None = None
    anonymous_bytes: int | None = None
    file_bytes: int | None = None
    proportional_bytes: int | None = None
    swapped_bytes: int | None = None
    cgroup_peak_bytes: int | None = None
    died_at_bytes: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    accelerator_allocated_bytes: int | None = None
    accelerator_reserved_bytes: int | None = None
    accelerator_process_bytes: int | None = None
    host_peak_bytes: int | None = None
    conditions: Conditions | None = None
    loads: Loads = {}
    timeline: Timeline | None = None
    plan: PlanTimeline | None = None

    @property
    def parts_bytes(self) -> dict[str, int]:
        """The composition at the peak by name, in the order it is drawn; `alignment` is what packing cost."""
        arena = {
            "parameters": self.parameters_bytes,
            "optimizer state": self.optimizer_state_bytes,
            "activations": self.activations_bytes,
            "gradients": self.gradients_bytes,
            "temporaries": self.temporaries_bytes,
        }
        return {
            "runtime base": self.base_bytes,
            **arena,
            "alignment": self.arena_bytes - sum(arena.values()),
            "frozen weights": self.frozen_bytes,
            "workspace": self.workspace_bytes,
            "staging": self.staging_bytes,
        }


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One JSON file per device, model and runtime. `bundle_sha256` is the digest of the bundle's manifest.

    `blocks` is how many blocks the model was cut into; `None` in profiles of releases that did not say.
    """

    TITLE: ClassVar[str] = "device profile"

    format_version: int = FORMAT_VERSION
    device: Device
    software: dict[str, str]
    runtime: Runtime
    model: str
    bundle_sha256: str
    measurement: Measurement
    costs: tuple[Cost, ...]
    blocks: int | None = None

    @property
    def timelines(self) -> Timelines:
        """Those that its costs carry."""
        return Timelines(
            format_version=FORMAT_VERSION,
            planned={cost.program: cost.plan for cost in self.costs if cost.plan is not None},
            sampled={cost.program: cost.timeline for cost in self.costs if cost.timeline is not None},
        )

    def without_timelines(self) -> DeviceProfile:
        """What a profile's file holds: calibration and costs."""
        costs = tuple(msgspec.structs.replace(cost, timeline=None, plan=None) for cost in self.costs)
        return msgspec.structs.replace(self, costs=costs)

    def with_timelines(self, timelines: Timelines) -> DeviceProfile:
        """The profile with these for the programs that they name, instead of its own."""
        costs = tuple(
            msgspec.structs.replace(
                cost,
                timeline=timelines.sampled.get(cost.program, cost.timeline),
                plan=timelines.planned.get(cost.program, cost.plan),
            )
            for cost in self.costs
        )
        return msgspec.structs.replace(self, costs=costs)

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
        check_profile(self, source)
        check_device(self.device, f"{source}: device")
        for cost in self.costs:
            check_cost(cost, f"{source}: costs: {cost.program}")
            check_loads(cost.loads, f"{source}: costs: {cost.program}: loads")

    def check_against(self, manifest: Manifest, digest: str, source: str, *, every_block: bool = False) -> None:
        """Raise FormatError unless the profile is of this bundle, and states its plans and none else.

        `every_block`: also where a block has no training program that was measured.
        """
        if self.bundle_sha256 != digest:
            raise FormatError(
                f"{source}: bundle_sha256: was measured with another bundle; run profl-profile on this one"
            )
        if self.model != manifest.model.name:
            raise FormatError(f"{source}: model is '{self.model}', the bundle's is '{manifest.model.name}'")
        if self.blocks is not None and self.blocks != len(manifest.partition.blocks):
            raise FormatError(f"{source}: blocks is {self.blocks}, the bundle has {len(manifest.partition.blocks)}")
        programs = {program.name: program for program in manifest.programs}
        for cost in self.costs:
            program = programs.get(cost.program)
            if program is None:
                raise FormatError(f"{source}: costs: {cost.program} is not a program of the bundle")
            stated = (cost.work, cost.block, cost.arena_bytes, cost.frozen_bytes, cost.staging_bytes)
            memory = program.memory
            planned = (program.work, program.block, memory.arena_bytes, memory.frozen_bytes, memory.staging_bytes)
            if self.runtime == "native" and stated != planned:
                raise FormatError(f"{source}: costs: {cost.program}: differs from the bundle's plan of it")
        missing = {block.index for block in manifest.partition.blocks} - {
            cost.block for cost in self.costs if isinstance(cost.work, Grow)
        }
        if every_block and missing:
            blocks = ", ".join(map(str, sorted(missing)))
            raise FormatError(f"{source}: costs: no training program of block {blocks} was measured")
