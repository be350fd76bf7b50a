"""What is profiled: the programs of a bundle, or of a model that PyTorch runs without one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from device_profiles.contract import CACHED_PREFIX_VARIANT
from device_profiles.errors import UsageError
from device_profiles.manifest import Program
from device_profiles.model import Model, Partition
from edge_runtime.device.prepare.bundle import open_bundle
from profiler.torch.meter import ModelChoice, ModelPlan, digest_of, plan_of, programs_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """`origin` names it in messages; `digest` is that of the bundle's manifest, or of the model's description."""

    origin: str
    model: Model
    partition: Partition
    programs: tuple[Program, ...]
    digest: str

    def chosen(self, kinds: tuple[str, ...], block: int | None) -> list[Program]:
        """Programs of these kinds, of one block if asked for; raises UsageError, with what there is, for none."""
        every = [program for program in self.programs if program.work.kind in kinds]
        chosen = [program for program in every if block in (None, program.block)]
        if not chosen:
            known = ", ".join(program.name for program in every) or "none"
            raise UsageError(f"{self.origin}: no program matches --block and --purpose (there are: {known})")
        return chosen

    def without_caches(self) -> Subject:
        """Without the programs that read a cache of the prefix, which PyTorch does not have."""
        return replace(self, programs=tuple(p for p in self.programs if p.variant != CACHED_PREFIX_VARIANT))

    def with_batch(self, batch: int) -> Subject:
        """The same for another batch; only where programs are made as they run, that is with PyTorch."""
        return replace(self, programs=programs_of(self.partition, batch))


def bundle_subject(path: Path) -> Subject:
    """The programs of a bundle; raises FormatError for a damaged one."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    return Subject(
        origin=str(path),
        model=manifest.model,
        partition=manifest.partition,
        programs=manifest.programs,
        digest=bundle.digest,
    )


def model_subject(choice: ModelChoice, batch: int) -> Subject:
    """The training programs of a model, run by PyTorch; raises UsageError where it cannot be cut into blocks."""
    plan = plan_of(choice)
    return Subject(
        origin=choice.model,
        model=plan.model,
        partition=plan.partition,
        programs=programs_of(plan.partition, batch),
        digest=digest_of(ModelPlan(model=plan.model, partition=plan.partition)),
    )
