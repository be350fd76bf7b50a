"""From a cut model to its programs: one step graph with its arena plan for each block and purpose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from device_profiles.contract import CACHED_PREFIX_VARIANT, Variant
from device_profiles.errors import UsageError
from device_profiles.manifest import Loss
from device_profiles.model import Partition
from device_profiles.work import Growing, block_of, distill, first_trained_unit, grow, joint, of_block
from edge_runtime.export.ir.graph import StepGraph
from edge_runtime.export.optimizers import optimizer_of
from edge_runtime.export.passes.narrow import narrow_frozen
from edge_runtime.export.plan.arena import plan_arena
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.program_entry import PlannedProgram, planned_program
from edge_runtime.export.plan.runs import Run, TrainingChoices, plan_run, trains_apart
from edge_runtime.export.plan.variants import Planned, fewest_bytes, plan_variant
from edge_runtime.export.step.train_step import (
    StepVariant,
    build_distillation,
    build_evaluation,
    build_features,
)


def build_programs(
    source: BlockModel, partition: Partition, *, blocks: tuple[int, ...], choices: TrainingChoices
) -> Iterator[PlannedProgram]:
    """Every program of the blocks in `blocks` (1-based).

    A block has a training step and an evaluation; where there is a prefix in front of it, also the prefix alone, the
    distillation into its stand-in, and both training steps as they read the prefix's outputs from a cache. With
    `choices.joint`, every run of blocks that ends with it has a training step as well. With `choices.works`, a block
    has those of them that end with it, and an evaluation.
    """
    for index in blocks:
        if choices.works is not None:
            yield _evaluation(source, partition, index, choices.loss)
            for work in choices.works:
                if block_of(work, partition) == index:
                    yield training_step(source, partition, work, choices)
            continue
        step, prefix_rows = _grow(source, partition, grow(partition, index), choices)
        yield step
        yield _evaluation(source, partition, index, choices.loss)
        if partition.blocks[index - 1].first_unit > 0:
            yield _features(source, partition, index, prefix_rows)
            yield _grow(source, partition, grow(partition, index), choices, cached_prefix=True)[0]
            yield from _distill(source, partition, index, choices, prefix_rows)
        for first in range(1, index) if choices.joint else ():
            yield training_step(source, partition, joint(partition, first, index), choices)


def checked_works(source: BlockModel, works: Iterable[Growing], partition: Partition) -> tuple[Growing, ...]:
    """Each of `works` once, in the order of the blocks; raises UsageError for one that does not end with a block, or
    that trains a tensor which is frozen before it as well."""
    for work in works:
        if all(block.last_unit != work.last_unit for block in partition.blocks) or first_trained_unit(work) < 0:
            ends = ", ".join(str(block.last_unit) for block in partition.blocks)
            raise UsageError(
                "does not end with a block",
                field="work",
                value=work.name,
                remedy=f"blocks end with the units {ends}; choose another partition or another run",
            )
        if not is_trained_apart(source, partition, work):
            raise UsageError(
                "trains a tensor that the units frozen before it share",
                field="work",
                value=work.name,
                remedy=f"train all of them together: joint-units0-{work.last_unit}",
            )
    return tuple(sorted(dict.fromkeys(works), key=lambda work: (work.last_unit, first_trained_unit(work))))


def is_trained_apart(source: BlockModel, partition: Partition, work: Growing) -> bool:
    """Whether `work` shares no tensor with the units that are frozen before it: otherwise no program trains it."""
    return trains_apart(source, run_of(source, partition, work))


def run_of(source: BlockModel, partition: Partition, work: Growing) -> Run:
    """The run of units that `work` trains, with the stand-ins of the blocks behind it."""
    return Run(
        first_unit=first_trained_unit(work),
        last_unit=work.last_unit,
        stand_ins=source.stand_ins(partition, block_of(work, partition)),
    )


def training_step(source: BlockModel, partition: Partition, work: Growing, choices: TrainingChoices) -> PlannedProgram:
    """The training step of `work`, which ends with a block of `partition`."""
    return _grow(source, partition, work, choices)[0]


def _grow(
    source: BlockModel,
    partition: Partition,
    work: Growing,
    choices: TrainingChoices,
    *,
    cached_prefix: bool = False,
) -> tuple[PlannedProgram, int]:
    """A training step, and the examples of its prefix at a time."""
    index, run = block_of(work, partition), run_of(source, partition, work)
    planned = plan_run(source, run, choices, block=index, cached_prefix=cached_prefix)
    name: Variant = "default"
    if cached_prefix:
        name = CACHED_PREFIX_VARIANT
    elif planned.variant.recompute:
        name = "recompute"
    described = planned_program(
        work,
        partition,
        planned.graph,
        planned.plan,
        batch=source.batch * choices.micro_batches,
        micro_batch=source.batch,
        variant=name,
        optimizer=choices.optimizer,
        loss=choices.loss,
    )
    return described, planned.variant.prefix_rows


def _distill(
    source: BlockModel, partition: Partition, index: int, choices: TrainingChoices, prefix_rows: int
) -> Iterator[PlannedProgram]:
    """The distillation of a block into its stand-in, with its prefix inside and from a cache.

    The prefix runs on as many examples at a time as in the block's own training step, whose cache it shares, and the
    teacher alike in both programs, so that both have the same results. Nothing is recomputed: there is next to nothing
    that it would keep.
    """
    block = partition.blocks[index - 1]
    units = source.cut.units
    student, *behind = source.stand_ins(partition, index - 1)

    def build(variant: StepVariant) -> StepGraph:
        graph = build_distillation(
            prefix=units[: block.first_unit],
            block=units[block.first_unit : block.last_unit + 1],
            student=student,
            stand_ins=tuple(behind),
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=source.tensor_shapes(partition),
            optimizer=optimizer_of(choices.optimizer, choices.micro_batches),
            variant=variant,
            input_dtype=source.input_dtype,
            fixed=source.fixed,
            aliases=source.aliases,
        )
        return narrow_frozen(graph, source.narrow)

    def described(planned: Planned, variant: Variant) -> PlannedProgram:
        return planned_program(
            distill(partition, index),
            partition,
            planned.graph,
            planned.plan,
            batch=source.batch * choices.micro_batches,
            micro_batch=source.batch,
            variant=variant,
            optimizer=choices.optimizer,
            loss=Loss(name="mse"),
        )

    variant = StepVariant(prefix_rows=prefix_rows)
    planned = fewest_bytes(build, variant, batch=source.batch, block=index, rows="teacher_rows")
    yield described(planned, "default")
    cached = plan_variant(build, replace(planned.variant, cached_prefix=True))
    yield described(cached, CACHED_PREFIX_VARIANT)


def _evaluation(source: BlockModel, partition: Partition, index: int, loss: Loss) -> PlannedProgram:
    block = partition.blocks[index - 1]

    def build(variant: StepVariant) -> StepGraph:
        graph = build_evaluation(
            units=source.cut.units[: block.last_unit + 1],
            stand_ins=source.stand_ins(partition, index),
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=source.tensor_shapes(partition),
            rows=variant.prefix_rows,
            input_dtype=source.input_dtype,
        )
        return narrow_frozen(graph, source.narrow)

    planned = fewest_bytes(build, StepVariant(), batch=source.batch, block=index)
    return planned_program(
        of_block("eval", partition, index),
        partition,
        planned.graph,
        planned.plan,
        batch=source.batch,
        micro_batch=source.batch,
        variant="default",
        loss=loss,
    )


def _features(source: BlockModel, partition: Partition, index: int, rows: int) -> PlannedProgram:
    """The prefix alone. It runs on as many examples at a time as in the step, so that its outputs are the same bits."""
    block = partition.blocks[index - 1]
    graph = build_features(
        prefix=source.cut.units[: block.first_unit],
        shapes=source.cut.shapes,
        tensor_shapes=source.tensor_shapes(partition),
        rows=rows,
        input_dtype=source.input_dtype,
    )
    plan = plan_arena(narrow_frozen(graph, source.narrow))
    return planned_program(
        of_block("features", partition, index),
        partition,
        graph,
        plan,
        batch=source.batch,
        micro_batch=source.batch,
        variant="default",
    )
