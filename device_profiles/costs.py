"""What every run of a model's units would cost to train, planned without a program: a bundle's `costs.json`."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from device_profiles.contract import CACHED_PREFIX_VARIANT, FORMAT_VERSION, DType, Variant
from device_profiles.errors import FormatError
from device_profiles.loads import Load, Loads, check_loads, total
from device_profiles.model import Partition
from device_profiles.trades import TRADES, Trade, executions_of


class RunCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A step that trains units `first_unit` to `last_unit` (0-based, both included) and the output module behind them.

    Where `first_unit` is `last_unit` + 1 the output module is trained alone. The step has `batch` examples in
    executions of `micro_batch`. `recompute_bytes` is what `profl-edge export --recompute` is given for a program with
    this plan. Bytes of memory are those of `MemoryPlan`; `loads` are of the whole step, all of its executions.

    `upload_bytes` are the tensors that an update carries, `download_bytes` those and the frozen ones: what a client
    that holds nothing is sent.
    """

    first_unit: int
    last_unit: int
    batch: int
    micro_batch: int
    variant: Variant = "default"
    momentum_dtype: DType = "float32"
    recompute_bytes: int | None = None
    arena_bytes: int
    frozen_bytes: int
    workspace_bytes_per_thread: int
    staging_bytes: int
    upload_bytes: int
    download_bytes: int
    loads: Loads

    @property
    def name(self) -> str:
        """`units3-8`, with the variant where it is not the default one."""
        return f"units{self.first_unit}-{self.last_unit}" + ("" if self.variant == "default" else f"-{self.variant}")

    @property
    def load(self) -> Load:
        """Arithmetic and bytes moved, all kernels together."""
        return total(self.loads)

    @property
    def exact(self) -> bool:
        """Whether its result is that of the default variant: recomputation and caches change nothing."""
        return self.momentum_dtype == "float32" and self.micro_batch == self.batch

    def trade(self, momentum: DType) -> Trade | None:
        """What it trades, beside programs with this type of momentum and one execution a step; None for several trades
        at once, and for a cached prefix."""
        executions = self.batch // self.micro_batch
        found: list[Trade | None] = []
        if self.variant == "recompute":
            found.append("recompute")
        if self.momentum_dtype != momentum:
            found.append("bfloat16")
        if executions > 1:
            found.append(next((trade for trade in TRADES if executions_of(trade) == executions), None))
        if self.variant == CACHED_PREFIX_VARIANT or len(found) > 1:
            return None
        return found[0] if found else "default"

    def total_bytes(self, threads: int) -> int:
        """What the process needs beside its base, as `MemoryPlan.total_bytes`."""
        return self.arena_bytes + self.frozen_bytes + self.workspace_bytes_per_thread * threads + self.staging_bytes


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`costs.json` of a bundle: for every end of a step, all runs that end there, and their variants.

    Behind `last_unit` lie the stand-ins of the bundle's partition; behind the last unit of all, the head alone. A table
    without a `partition` is of steps that nobody has chosen yet: behind `last_unit` lies all of the rest as one block.

    `planned_from` is a digest of the model and its training: another table of the same has the same rows.
    """

    TITLE: ClassVar[str] = "document of costs"

    format_version: int = FORMAT_VERSION
    model: str
    runs: tuple[RunCost, ...]
    partition: Partition | None = None
    planned_from: str | None = None

    def of(self, first_unit: int, last_unit: int) -> tuple[RunCost, ...]:
        """Every variant of one run, as they are listed."""
        return tuple(run for run in self.runs if (run.first_unit, run.last_unit) == (first_unit, last_unit))

    def check(self, source: str) -> None:
        """Raise FormatError, naming `source`, where a row contradicts itself."""
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"{source}: format_version {self.format_version} is not known here (this release reads "
                f"{FORMAT_VERSION})"
            )
        for place, run in enumerate(self.runs):
            _check_run(run, f"{source}: runs: {place}")


def _check_run(run: RunCost, where: str) -> None:
    counts = {
        name: value for name, value in msgspec.structs.asdict(run).items() if isinstance(value, int) and value < 0
    }
    if counts and (set(counts) != {"last_unit"} or run.last_unit < -1):
        raise FormatError(f"{where}: {next(iter(counts))} is below 0")
    if not run.first_unit <= run.last_unit + 1:
        raise FormatError(f"{where}: first_unit {run.first_unit} lies behind last_unit {run.last_unit}")
    if run.micro_batch < 1 or run.batch < run.micro_batch or run.batch % run.micro_batch:
        raise FormatError(f"{where}: batch {run.batch} is not a multiple of micro_batch {run.micro_batch}")
    if (run.recompute_bytes is not None) != (run.variant == "recompute"):
        raise FormatError(f"{where}: recompute_bytes belongs to the variant recompute, which needs it")
    if run.variant == CACHED_PREFIX_VARIANT and run.first_unit == 0:
        raise FormatError(f"{where}: there is no prefix before unit 0 to read from a cache")
    check_loads(run.loads, f"{where}: loads")
