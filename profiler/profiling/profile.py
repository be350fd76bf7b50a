"""Profile a bundle or a model: the profile is written after each program, so that an interruption loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from device_profiles.contract import LimitKind, Runtime
from device_profiles.errors import FormatError, UsageError
from device_profiles.files import read_json, write_json
from device_profiles.manifest import Program
from device_profiles.outputs import in_place
from device_profiles.places import disk_folder
from device_profiles.profile import Cost, DeviceProfile, Measurement
from device_profiles.sizes import MEGABYTE
from edge_runtime.device.limits.control_groups import MemoryLimit, memory_limit
from edge_runtime.device.limits.endings import Endings
from profiler.facts.device_facts import describe_device, describe_software
from profiler.measure.breakdown import cost_of
from profiler.measure.program import Meter, Observation, ProcessMeter
from profiler.profiling.subject import Subject, bundle_subject
from profiler.torch.meter import TorchMeter, require_torch
from profiler.torch.spec import TorchDevice


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileRequest:
    """What to measure. Without `limit_bytes` the limit that this process already lives under is recorded.

    `bundle` may be None where `runtime` is `torch` and the subject is a model. `cached_prefix`: also the training
    programs that read the frozen blocks' outputs from a cache. `endings`: folder of a process that starts this one
    again after each program (`edge_runtime.device.limits.endings`).
    """

    bundle: Path | None
    output: Path
    name: str
    limit_bytes: int | None = None
    block: int | None = None
    kinds: tuple[str, ...] = ("grow",)
    steps: int = 3
    warmup_steps: int = 1
    repetitions: int = 1
    threads: int = 1
    timeout_seconds: float | None = None
    runtime: Runtime = "native"
    device: TorchDevice = "cpu"
    cached_prefix: bool = True
    endings: Path | None = None


def profile_bundle(
    request: ProfileRequest,
    *,
    meter: Meter | None = None,
    subject: Subject | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> DeviceProfile:
    """Measure the programs of a bundle (or of `subject`) and write the profile to `request.output`.

    A profile of the bundle already there is continued when it was measured the same way, replaced when it was not.
    What is returned has also the timelines of the programs that this call measured; the file has none.
    Raises FormatError for a damaged bundle or an output that is not a profile, UsageError where no program is asked for
    or the output is the profile of another bundle, ExecutionError where a program fails for another reason than memory.
    """
    return _Profiling(request, subject or subject_of(request), meter, progress).run()


def subject_of(request: ProfileRequest) -> Subject:
    """The bundle of the request, as far as its runtime can run it."""
    if request.bundle is None:
        raise UsageError("give a BUNDLE, or --model with --runtime torch")
    subject = bundle_subject(request.bundle)
    return subject.without_caches() if request.runtime == "torch" or not request.cached_prefix else subject


def meter_of(request: ProfileRequest, subject: Subject) -> Meter:
    """The meter of the request's runtime."""
    if request.runtime == "torch":
        require_torch()
        return TorchMeter(
            model=subject.model,
            partition=subject.partition,
            device=request.device,
            limit_bytes=request.limit_bytes,
            steps=request.steps,
            warmup_steps=request.warmup_steps,
            threads=request.threads,
            timeout_seconds=request.timeout_seconds,
        )
    if request.bundle is None or request.device != "cpu":
        raise UsageError("--device cuda: requires --runtime torch")
    return ProcessMeter(
        scratch=_scratch(request.output),
        bundle=request.bundle,
        limit_bytes=request.limit_bytes,
        steps=request.steps,
        warmup_steps=request.warmup_steps,
        threads=request.threads,
        timeout_seconds=request.timeout_seconds,
        endings=None if request.endings is None else Endings(request.endings),
    )


def _outside(limit_bytes: int | None) -> MemoryLimit | None:
    """The limit that this process itself lives under, where no other is asked for.

    Raises UsageError for a limit above it, which would never be reached.
    """
    outside = memory_limit()
    if limit_bytes is None or outside is None or limit_bytes <= outside.size_bytes:
        return outside if limit_bytes is None else None
    raise UsageError(
        f"--limit {limit_bytes / MEGABYTE:.1f}MB: this process already has a limit of "
        f"{outside.size_bytes / MEGABYTE:.1f}MB ({outside.kind}); use that or less"
    )


def _scratch(output: Path) -> Path:
    """Where measured processes write: beside the output unless that lies in memory, which would be charged to them."""
    return Path(disk_folder(*([str(output.parent)] if output.name and not in_place(str(output)) else [])))


class _Profiling:
    def __init__(
        self, request: ProfileRequest, subject: Subject, meter: Meter | None, progress: Callable[[str], None]
    ) -> None:
        self._request = request
        self._progress = progress
        self._subject = subject
        self._programs = subject.chosen(request.kinds, request.block)
        self._meter = meter or meter_of(request, subject)
        outside = _outside(request.limit_bytes)
        self._limit_bytes = request.limit_bytes if outside is None else outside.size_bytes
        self._limit_kind: LimitKind = "none" if outside is None else outside.kind
        self._software = describe_software(None)

    def run(self) -> DeviceProfile:
        profile = self._earlier()
        done = {cost.program for cost in profile.costs} if profile is not None else set()
        todo = [program for program in self._programs if program.name not in done]
        for number, program in enumerate(todo, start=1):
            self._progress(f"{program.name}: measuring ({number}/{len(todo)})")
            cost = self._measure(program)
            profile = self._profile((*(profile.costs if profile is not None else ()), cost))
            write_json(self._request.output, profile.without_timelines())
        assert profile is not None  # there is a program, and each one leaves a profile
        return profile

    def _measure(self, program: Program) -> Cost:
        observations: list[Observation] = []
        for _ in range(self._request.repetitions):
            observations.append(self._meter.measure(program))
            if observations[-1].report is None:
                break
        if observations[-1].limit_kind != "none":
            self._limit_kind = observations[-1].limit_kind
        instruction_set = next((o.report.get("instruction_set") for o in observations if o.report), None)
        if instruction_set is not None:
            self._software = describe_software(instruction_set)
        return cost_of(
            program,
            observations,
            base_bytes=self._meter.base_bytes,
            threads=self._request.threads,
            plan=self._meter.plan(program),
        )

    def _profile(self, costs: tuple[Cost, ...]) -> DeviceProfile:
        request = self._request
        return DeviceProfile(
            device=describe_device(request.name, limit_bytes=self._limit_bytes, limit_kind=self._limit_kind),
            software=self._software,
            runtime=request.runtime,
            model=self._subject.model.name,
            bundle_sha256=self._subject.digest,
            measurement=Measurement(
                repetitions=request.repetitions,
                steps=request.steps,
                warmup_steps=request.warmup_steps,
                threads=request.threads,
                measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
            costs=costs,
            blocks=len(self._subject.partition.blocks),
        )

    def _earlier(self) -> DeviceProfile | None:
        """The profile at the output when it was measured the same way; raises UsageError for that of another bundle."""
        request = self._request
        if not request.output.exists() or in_place(str(request.output)):
            return None
        try:
            profile = read_json(request.output, DeviceProfile)
        except FormatError as error:
            raise FormatError(f"-o {error}; it cannot be continued: remove it or choose another file") from None
        if profile.bundle_sha256 != self._subject.digest:
            raise UsageError(
                f"-o {request.output}: is the profile of another bundle (a {profile.model} whose manifest begins with "
                f"{profile.bundle_sha256[:12]}); choose another file with -o, or remove it"
            )
        measured = profile.measurement
        same = (
            profile.runtime == request.runtime
            and (profile.device.name, profile.device.limit_bytes) == (request.name, self._limit_bytes)
            and (measured.threads, measured.repetitions) == (request.threads, request.repetitions)
            and (measured.steps, measured.warmup_steps) == (request.steps, request.warmup_steps)
        )
        if not same:
            return None
        self._software, self._limit_kind = profile.software, profile.device.limit_kind
        return profile
