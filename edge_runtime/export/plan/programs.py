"""From a module to its programs: capture, cut, and one step graph with its arena plan for each block and purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from device_profiles.contract import CACHED_PREFIX_VARIANT, DType, Variant, stand_in_name
from device_profiles.errors import UsageError
from device_profiles.manifest import Loss, Optimizer
from device_profiles.model import Block, Model, Partition, TensorSpec, Unit
from device_profiles.work import distill, grow, joint, of_block
from edge_runtime.export.capture.capture import capture
from edge_runtime.export.capture.tracing import OneValueError
from edge_runtime.export.cut.names import aliases_in
from edge_runtime.export.cut.stand_ins import MissingBlock, StandIn, kinds_of, stand_in
from edge_runtime.export.cut.tied import second_names
from edge_runtime.export.cut.units import CutModel, cut
from edge_runtime.export.ir.graph import StepGraph
from edge_runtime.export.optimizers import optimizer_of
from edge_runtime.export.passes.fusion import fuse
from edge_runtime.export.passes.kept_sums import keep_sums
from edge_runtime.export.passes.views import fold_views
from edge_runtime.export.plan.arena import plan_arena
from edge_runtime.export.plan.program_entry import PlannedProgram, planned_program
from edge_runtime.export.plan.variants import Planned, fewest_bytes, plan_variant
from edge_runtime.export.step.train_step import (
    StepVariant,
    build_distillation,
    build_evaluation,
    build_features,
    build_train_step,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockModel:
    """A captured and cut module: what every program of a bundle is built from. `batch` is of one execution."""

    name: str
    cut: CutModel
    input_shape: tuple[int, ...]
    classes: int
    batch: int
    tensors: tuple[TensorSpec, ...]
    input_dtype: DType = "float32"
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names of tensors that several modules share, and the name that programs know them by."""
    log_probabilities: bool = False
    head: str | None = None

    @classmethod
    def of(
        cls,
        module: nn.Module,
        *,
        name: str,
        batch: int,
        input_shape: tuple[int, ...],
        classes: int,
        head: str | None = None,
        input_dtype: DType = "float32",
        batch_key: str = "batch",
    ) -> BlockModel:
        """Capture `module` for batches of `batch`, of float32 or of tokens (int64).

        `head` names the module where the classifier head begins, `batch_key` the setting that `batch` follows from.

        Raises UsageError where it cannot be trained here.
        """
        if batch < 1:
            raise UsageError("a step needs at least one example", field=batch_key, value=batch)
        try:
            captured = capture(module, batch=batch, input_shape=input_shape, input_dtype=input_dtype)
        except OneValueError as error:
            raise UsageError(
                (error.message, ", which has no variance to train with"),
                field=batch_key,
                value=batch,
                remedy="give at least 2",
            ) from None
        model = keep_sums(fold_views(fuse(captured)))
        units = cut(model, classes=classes, head=head)
        state = module.state_dict()
        other_names = second_names(state, used=[name for unit in (*units.units, units.head) for name in unit.tensors])
        specs = tuple(
            TensorSpec(
                name=key,
                dtype="int64" if value.dtype.is_floating_point is False else "float32",
                shape=tuple(value.shape),
                same_as=other_names.get(key),
            )
            for key, value in state.items()
        )
        return cls(
            name=name,
            cut=units,
            input_shape=input_shape,
            classes=classes,
            batch=batch,
            tensors=specs,
            input_dtype=input_dtype,
            constants=model.constants,
            fixed=model.fixed,
            aliases=aliases_in(module, units),
            log_probabilities=model.log_probabilities,
            head=head,
        )

    @property
    def model(self) -> Model:
        """The vocabulary's view of it."""
        sizes = {spec.name: spec.bytes for spec in self.tensors}
        units = []
        for unit in self.cut.units:
            parameters = [name for name in unit.tensors if name not in self.fixed]
            units.append(
                Unit(
                    name=unit.name,
                    input_shape=self.cut.shapes[unit.input][1:],
                    output_shape=self.cut.shapes[unit.output][1:],
                    tensors=unit.tensors,
                    parameter_bytes=sum(sizes[name] for name in parameters),
                )
            )
        return Model(
            name=self.name,
            input_shape=self.input_shape,
            classes=self.classes,
            units=tuple(units),
            head=self.cut.head.tensors,
            tensors=self.tensors,
            input_dtype=self.input_dtype,
            vocabulary=self._vocabulary() if self.input_dtype == "int64" else None,
        )

    def _vocabulary(self) -> int:
        """How many different tokens the model takes: rows of the smallest table that they are looked up in."""
        shapes = {spec.name: spec.shape for spec in self.tensors}
        layers = [layer for unit in self.cut.units for layer in unit.layers if self.cut.input in layer.inputs]
        tables = [layer.tensors[0] for layer in layers if layer.kind == "embedding"]
        if len(tables) < len(layers):
            kinds = ", ".join(sorted({layer.kind for layer in layers} - {"embedding"}))
            raise UsageError(
                f"tokens are read by other layers than an embedding ({kinds})", field="input_dtype", value="int64"
            )
        return min(shapes[table][0] for table in tables if table is not None)

    @property
    def statistics(self) -> frozenset[str]:
        """The running statistics that training updates."""
        layers = [layer for unit in (*self.cut.units, self.cut.head) for layer in unit.layers]
        norms = [la for la in layers if la.kind == "batch_norm" and not la.attributes.get("fixed")]
        return frozenset(name for norm in norms for name in norm.tensors[2:] if name is not None)

    def stand_in_shapes(self, partition: Partition) -> dict[str, tuple[int, ...]]:
        """Weight shapes of the stand-ins of blocks 2..T, by the weights' names."""
        return {stand_in.name: stand_in.weight_shape for stand_in in self.stand_ins(partition, 1)}

    def tensor_shapes(self, partition: Partition) -> dict[str, tuple[int, ...]]:
        """Shapes of every `state_dict` tensor, constant and stand-in."""
        return self.own_shapes | self.stand_in_shapes(partition)

    @property
    def own_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of every `state_dict` tensor and constant."""
        constants = {name: tuple(value.shape) for name, value in self.constants.items()}
        return {spec.name: spec.shape for spec in self.tensors} | constants

    def stand_ins(self, partition: Partition, active: int) -> tuple[StandIn, ...]:
        """What stands in for the blocks behind block `active`."""
        return tuple(self._stand_in(block) for block in partition.blocks[active:])

    def _stand_in(self, block: Block) -> StandIn:
        units = self.cut.units[block.first_unit : block.last_unit + 1]
        start, end = units[0].input, units[-1].output
        missing = MissingBlock(
            name=stand_in_name(block.index),
            input=start,
            output=end,
            before=self.cut.shapes[start],
            after=self.cut.shapes[end],
            kinds=kinds_of(layer for unit in units for layer in unit.layers),
        )
        return stand_in(missing, index=block.index)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChoices:
    """What an export asks of its training programs.

    Attributes:
        optimizer: compiled into them.
        loss: what they minimise.
        micro_batches: executions that make up one step.
        recompute_bytes: compute layers again until the arena is no larger than this; None keeps them all.
        joint: also the steps that train runs of blocks together.
    """

    optimizer: Optimizer
    loss: Loss = field(default_factory=Loss)
    micro_batches: int = 1
    recompute_bytes: int | None = None
    joint: bool = False


def build_programs(
    source: BlockModel, partition: Partition, *, blocks: tuple[int, ...], choices: TrainingChoices
) -> Iterator[PlannedProgram]:
    """Every program of the blocks in `blocks` (1-based).

    A block has a training step and an evaluation; where there is a prefix in front of it, also the prefix alone, the
    distillation into its stand-in, and both training steps as they read the prefix's outputs from a cache. With
    `choices.joint`, every run of blocks that ends with it has a training step as well.
    """
    for index in blocks:
        step, prefix_rows = _grow(source, partition, index, choices)
        yield step
        yield _evaluation(source, partition, index, choices.loss)
        if partition.blocks[index - 1].first_unit > 0:
            yield _features(source, partition, index, prefix_rows)
            yield _grow(source, partition, index, choices, cached_prefix=True)[0]
            yield from _distill(source, partition, index, choices, prefix_rows)
        for first in range(1, index) if choices.joint else ():
            yield _grow(source, partition, index, choices, first=first)[0]


def _grow(
    source: BlockModel,
    partition: Partition,
    index: int,
    choices: TrainingChoices,
    *,
    first: int | None = None,
    cached_prefix: bool = False,
) -> tuple[PlannedProgram, int]:
    """The training step of a block, or of blocks `first` to `index`, and the examples of its prefix at a time."""
    start = partition.blocks[(index if first is None else first) - 1].first_unit
    end = partition.blocks[index - 1].last_unit + 1
    units = source.cut.units

    def build(variant: StepVariant) -> StepGraph:
        return build_train_step(
            prefix=units[:start],
            active=units[start:end],
            stand_ins=source.stand_ins(partition, index),
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=source.tensor_shapes(partition),
            optimizer=optimizer_of(choices.optimizer, choices.micro_batches),
            variant=variant,
            loss=choices.loss,
            input_dtype=source.input_dtype,
            fixed=source.fixed,
            aliases=source.aliases,
        )

    variant = StepVariant(cached_prefix=cached_prefix)
    planned = fewest_bytes(
        build,
        variant,
        batch=source.batch,
        block=index,
        recompute_bytes=choices.recompute_bytes,
        checkpoints=frozenset(unit.output for unit in units[start:end]),
    )
    name: Variant = "default"
    if cached_prefix:
        name = CACHED_PREFIX_VARIANT
    elif planned.variant.recompute:
        name = "recompute"
    described = planned_program(
        grow(partition, index) if first is None else joint(partition, first, index),
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
        return build_distillation(
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
        return build_evaluation(
            units=source.cut.units[: block.last_unit + 1],
            stand_ins=source.stand_ins(partition, index),
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=source.tensor_shapes(partition),
            rows=variant.prefix_rows,
            input_dtype=source.input_dtype,
        )

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
    plan = plan_arena(graph)
    return planned_program(
        of_block("features", partition, index),
        partition,
        graph,
        plan,
        batch=source.batch,
        micro_batch=source.batch,
        variant="default",
    )
