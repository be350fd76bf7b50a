"""What every run of units costs in every variant, planned as an export plans it, without writing programs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from device_profiles.contract import CACHED_PREFIX_VARIANT, TRAINED_ROLES, DType, Variant
from device_profiles.costs import RunCost
from device_profiles.model import Partition
from device_profiles.optimizers import OPTIMIZERS
from edge_runtime.export.ir.graph import StepGraph, Value
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.loads import loads_of
from edge_runtime.export.plan.program_entry import memory_of
from edge_runtime.export.plan.runs import Run, TrainingChoices, checkpoints_of, step_of, trains_apart
from edge_runtime.export.plan.variants import (
    Planned,
    best_rows,
    everything_again,
    least_again,
    plan_variant,
    smallest_again,
)
from edge_runtime.export.step.train_step import StepVariant


@dataclass(frozen=True, kw_only=True, slots=True)
class Variants:
    """Which variants are planned beside the default one, each by itself.

    Attributes:
        recompute: the smallest arena that recomputation reaches, as `recomputed_cost`.
        recompute_shares: further budgets of recomputation, as shares of the way from that arena (0) to that of the
            default variant (1). Each takes as many plans as the run has layers.
        cached_prefix: whether the outputs of the prefix may be read from a cache.
        momentum_dtypes: further types that the momentum may be stored in.
    """

    recompute: bool = True
    recompute_shares: tuple[float, ...] = ()
    cached_prefix: bool = True
    momentum_dtypes: tuple[DType, ...] = ("bfloat16",)


DEFAULT_ONLY = Variants(recompute=False, cached_prefix=False, momentum_dtypes=())


def step_costs(
    sources: Sequence[BlockModel], partition: Partition, choices: TrainingChoices, variants: Variants = DEFAULT_ONLY
) -> Iterator[RunCost]:
    """The costs of all runs that end with a block of `partition`, the output module alone among them.

    Args:
        sources: one model, captured for batches that divide that of the first, each an execution of a step. All but
            the first have the default variant alone.
        partition: its blocks are the steps' ends, and what stand-ins stand in for.
        choices: of the training programs; `micro_batches` are executions of the first of `sources` in a step.
        variants: which to plan beside the default variant.

    Runs that would train a tensor which their frozen prefix reads too are left out: no program trains them.
    """
    for block in partition.blocks:
        for first in range(block.last_unit + 2):
            for source in sources:
                run = Run(
                    first_unit=first,
                    last_unit=block.last_unit,
                    stand_ins=source.stand_ins(partition, block.index),
                )
                if not trains_apart(source, run):
                    continue
                executions = choices.micro_batches * sources[0].batch // source.batch
                own = replace(choices, micro_batches=executions, recompute_bytes=None)
                yield from run_costs(source, run, own, variants if source is sources[0] else DEFAULT_ONLY)


def run_costs(
    source: BlockModel, run: Run, choices: TrainingChoices, variants: Variants = DEFAULT_ONLY
) -> Iterator[RunCost]:
    """The default variant of one run, and those asked for that differ from it."""
    build = step_of(source, run, choices)
    planned = best_rows(build, StepVariant(), source.batch)
    yield _cost(source, run, choices, planned, "default")
    if variants.cached_prefix and run.first_unit > 0:
        cached = plan_variant(build, StepVariant(cached_prefix=True))
        yield _cost(source, run, choices, cached, CACHED_PREFIX_VARIANT, reads=planned.graph)
    if variants.recompute:
        smallest = smallest_again(build, planned, checkpoints_of(source, run))
        if smallest is not None:
            yield _cost(source, run, choices, smallest, "recompute", budget=smallest.plan.arena_bytes)
    if variants.recompute_shares:
        yield from _recomputed_costs(source, run, choices, planned, variants.recompute_shares)
    for dtype in variants.momentum_dtypes if _stores_momentum(choices) else ():
        if dtype != choices.optimizer.momentum_dtype:
            own = replace(choices, optimizer=msgspec.structs.replace(choices.optimizer, momentum_dtype=dtype))
            yield _cost(source, run, own, best_rows(step_of(source, run, own), StepVariant(), source.batch), "default")


def recomputed_cost(source: BlockModel, run: Run, choices: TrainingChoices) -> RunCost | None:
    """The smallest arena that recomputation reaches in a run, None where it saves nothing.

    An export with these `recompute_bytes` keeps what it can within them: it computes no more than `loads` say, and
    often less. Finding out how much less takes as many plans again as the run has layers.
    """
    build = step_of(source, run, choices)
    planned = best_rows(build, StepVariant(), source.batch)
    smallest = smallest_again(build, planned, checkpoints_of(source, run))
    if smallest is None:
        return None
    return _cost(source, run, choices, smallest, "recompute", budget=smallest.plan.arena_bytes)


def _recomputed_costs(
    source: BlockModel, run: Run, choices: TrainingChoices, planned: Planned, shares: Sequence[float]
) -> Iterator[RunCost]:
    """What is computed again where the arena may be so large, by shares of the way to that of `planned`."""
    build = step_of(source, run, choices)
    everything = everything_again(build, planned, checkpoints_of(source, run))
    largest = planned.plan.arena_bytes
    smallest = min(candidate.plan.arena_bytes for candidate in everything)
    for share in shares if smallest < largest else ():
        budget = smallest + int(share * (largest - smallest))
        again = least_again(build, everything, budget)
        assert again is not None  # the smallest is within
        yield _cost(source, run, choices, again, "recompute", budget=budget)


def planned_from(source: BlockModel, choices: TrainingChoices) -> str:
    """A digest of all that the costs of runs follow from: the model as it was captured, and what its programs do."""
    model = source.cut
    described = (model.units, model.head, sorted(model.shapes.items()), sorted(source.fixed), source.tensors)
    settings = (source.batch, choices.micro_batches, choices.optimizer, choices.loss)
    return hashlib.sha256(repr((described, settings)).encode()).hexdigest()


def _stores_momentum(choices: TrainingChoices) -> bool:
    return "momentum_dtype" in OPTIMIZERS[choices.optimizer.name].settings and choices.optimizer.momentum > 0


def _cost(
    source: BlockModel,
    run: Run,
    choices: TrainingChoices,
    planned: Planned,
    variant: Variant,
    *,
    budget: int | None = None,
    reads: StepGraph | None = None,
) -> RunCost:
    """`reads` is the graph that says which frozen tensors a client needs: with a cache, what filled it."""
    memory = memory_of(planned.graph, planned.plan)
    trained = _bytes(v for v in planned.graph.state if v.role in TRAINED_ROLES and v.storage is None)
    frozen = _bytes(v for v in (reads or planned.graph).inputs if v.role == "frozen")
    return RunCost(
        first_unit=run.first_unit,
        last_unit=run.last_unit,
        batch=source.batch * choices.micro_batches,
        micro_batch=source.batch,
        variant=variant,
        momentum_dtype=choices.optimizer.momentum_dtype,
        recompute_bytes=budget,
        arena_bytes=memory.arena_bytes,
        frozen_bytes=memory.frozen_bytes,
        workspace_bytes_per_thread=memory.workspace_bytes_per_thread,
        staging_bytes=memory.staging_bytes,
        upload_bytes=trained,
        download_bytes=trained + frozen,
        loads=loads_of(planned.graph, micro_batches=choices.micro_batches),
    )


def _bytes(values: Iterator[Value]) -> int:
    return sum(value.bytes for value in values)
