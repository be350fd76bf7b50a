"""From a module to its programs: capture, cut, and one step graph with its arena plan for each block and purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from device_profiles.bundle import MemoryPlan, Optimizer, Program, ProgramInput, ProgramTensor
from device_profiles.contract import (
    CACHED_PREFIX_VARIANT,
    HYPERPARAMETERS_INPUT,
    LABELS_INPUT,
    WORKSPACE_BYTES_PER_THREAD,
    InputRole,
    Purpose,
    Variant,
    program_name,
    stand_in_name,
)
from device_profiles.errors import UsageError
from device_profiles.model import Model, Partition, TensorSpec, Unit
from edge_runtime.export.capture import capture
from edge_runtime.export.frozen_residency import frozen_residency
from edge_runtime.export.fusion import fuse
from edge_runtime.export.graph import StepGraph, Value
from edge_runtime.export.memory_plan import ArenaPlan, plan_arena
from edge_runtime.export.train_step import (
    StandIn,
    StepVariant,
    build_evaluation,
    build_features,
    build_train_step,
)
from edge_runtime.export.units import CutModel, cut
from edge_runtime.export.variants import fewest_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockModel:
    """A captured and cut module: what every program of a bundle is built from. `batch` is of one execution."""

    name: str
    cut: CutModel
    input_shape: tuple[int, ...]
    classes: int
    batch: int
    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, module: nn.Module, *, name: str, batch: int, input_shape: tuple[int, ...], classes: int) -> BlockModel:
        """Capture `module` for batches of `batch`; raises UsageError where it cannot be trained here."""
        if batch < 2:
            raise UsageError(f"--batch {batch}: BatchNorm needs at least 2 examples in a step")
        captured = cut(fuse(capture(module, batch=batch, input_shape=input_shape)))
        specs = tuple(
            TensorSpec(
                name=key,
                dtype="int64" if value.dtype.is_floating_point is False else "float32",
                shape=tuple(value.shape),
            )
            for key, value in module.state_dict().items()
        )
        return cls(name=name, cut=captured, input_shape=input_shape, classes=classes, batch=batch, tensors=specs)

    @property
    def model(self) -> Model:
        """The vocabulary's view of it."""
        sizes = {spec.name: spec.bytes for spec in self.tensors}
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        units = []
        for unit in self.cut.units:
            parameters = [name for name in unit.tensors if not name.endswith(statistics)]
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
        )

    def stand_in_shapes(self, partition: Partition) -> dict[str, tuple[int, ...]]:
        """Weight shapes of the stand-ins of blocks 2..T: 3x3 convolutions from the block's input to its output."""
        shapes: dict[str, tuple[int, ...]] = {}
        for block in partition.blocks[1:]:
            before, after = self._block_shapes(partition, block.index)
            shapes[stand_in_name(block.index)] = (after[0], before[0], 3, 3)
        return shapes

    def tensor_shapes(self, partition: Partition) -> dict[str, tuple[int, ...]]:
        """Shapes of every `state_dict` tensor and stand-in."""
        return {spec.name: spec.shape for spec in self.tensors} | self.stand_in_shapes(partition)

    def _block_shapes(self, partition: Partition, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        block = partition.blocks[index - 1]
        before = self.cut.shapes[self.cut.units[block.first_unit].input][1:]
        after = self.cut.shapes[self.cut.units[block.last_unit].output][1:]
        if len(before) != 3 or len(after) != 3:
            raise UsageError(f"--partition: block {index} does not map images to images, so it has no stand-in")
        return before, after

    def stand_ins(self, partition: Partition, active: int) -> tuple[StandIn, ...]:
        """The output module's convolutions behind block `active`: one a missing block, stride its reduction."""
        result = []
        for block in partition.blocks[active:]:
            before, after = self._block_shapes(partition, block.index)
            stride = (max(1, before[1] // after[1]), max(1, before[2] // after[2]))
            result.append(StandIn(name=stand_in_name(block.index), stride=stride))
        return tuple(result)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChoices:
    """What an export asks of its training programs.

    Attributes:
        optimizer: compiled into them.
        micro_batches: executions that make up one step.
        recompute_bytes: compute layers again until the arena is no larger than this; None keeps them all.
    """

    optimizer: Optimizer
    micro_batches: int = 1
    recompute_bytes: int | None = None


def build_programs(
    source: BlockModel, partition: Partition, *, blocks: tuple[int, ...], choices: TrainingChoices
) -> Iterator[PlannedProgram]:
    """Every program of the blocks in `blocks` (1-based).

    A block has a training step and an evaluation; where there is a prefix in front of it, also the prefix alone and a
    training step that reads its outputs from a cache.
    """
    for index in blocks:
        step, prefix_rows = _grow(source, partition, index, choices, cached_prefix=False)
        yield step
        yield _evaluation(source, partition, index)
        if partition.blocks[index - 1].first_unit > 0:
            yield _features(source, partition, index, prefix_rows)
            yield _grow(source, partition, index, choices, cached_prefix=True)[0]


def _grow(
    source: BlockModel, partition: Partition, index: int, choices: TrainingChoices, *, cached_prefix: bool
) -> tuple[PlannedProgram, int]:
    """The training step, and the examples of its prefix at a time."""
    block = partition.blocks[index - 1]
    units = source.cut.units

    def build(variant: StepVariant) -> StepGraph:
        return build_train_step(
            prefix=units[: block.first_unit],
            active=units[block.first_unit : block.last_unit + 1],
            stand_ins=source.stand_ins(partition, index),
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=source.tensor_shapes(partition),
            optimizer=choices.optimizer,
            variant=variant,
        )

    variant = StepVariant(micro_batches=choices.micro_batches, cached_prefix=cached_prefix)
    planned = fewest_bytes(
        build,
        variant,
        batch=source.batch,
        recompute_bytes=choices.recompute_bytes,
        checkpoints=frozenset(unit.output for unit in units[block.first_unit : block.last_unit + 1]),
    )
    name: Variant = "default"
    if cached_prefix:
        name = CACHED_PREFIX_VARIANT
    elif planned.variant.recompute:
        name = "recompute"
    described = _describe(
        "grow",
        index,
        planned.graph,
        planned.plan,
        batch=source.batch * choices.micro_batches,
        micro_batch=source.batch,
        variant=name,
        optimizer=choices.optimizer,
    )
    return described, planned.variant.prefix_rows


def _evaluation(source: BlockModel, partition: Partition, index: int) -> PlannedProgram:
    block = partition.blocks[index - 1]

    def build(variant: StepVariant) -> StepGraph:
        return build_evaluation(
            units=source.cut.units[: block.last_unit + 1],
            stand_ins=source.stand_ins(partition, index),
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=source.tensor_shapes(partition),
            rows=variant.prefix_rows,
        )

    planned = fewest_bytes(build, StepVariant(), batch=source.batch)
    return _describe(
        "eval", index, planned.graph, planned.plan, batch=source.batch, micro_batch=source.batch, variant="default"
    )


def _features(source: BlockModel, partition: Partition, index: int, rows: int) -> PlannedProgram:
    """The prefix alone. It runs on as many examples at a time as in the step, so that its outputs are the same bits."""
    block = partition.blocks[index - 1]
    graph = build_features(
        prefix=source.cut.units[: block.first_unit],
        shapes=source.cut.shapes,
        tensor_shapes=source.tensor_shapes(partition),
        rows=rows,
    )
    plan = plan_arena(graph)
    return _describe("features", index, graph, plan, batch=source.batch, micro_batch=source.batch, variant="default")


PlannedProgram = tuple[Program, StepGraph, ArenaPlan]


def _describe(
    purpose: Purpose,
    block: int,
    graph: StepGraph,
    plan: ArenaPlan,
    *,
    batch: int,
    micro_batch: int,
    variant: Variant,
    optimizer: Optimizer | None = None,
) -> PlannedProgram:
    residency = frozen_residency(graph)
    program = Program(
        name=program_name(purpose, block, variant),
        purpose=purpose,
        block=block,
        batch=batch,
        micro_batch=micro_batch,
        variant=variant,
        optimizer=optimizer,
        inputs=tuple(
            ProgramInput(
                name=value.name,
                role=_input_role(value),
                dtype=value.dtype,
                shape=value.shape,
                released_after=residency.released_after.get(value, ()),
            )
            for value in (*graph.data, *graph.inputs)
        ),
        tensors=tuple(
            ProgramTensor(name=value.name, role=_state_role(value), dtype=value.dtype, shape=value.shape)
            for value in graph.state
        ),
        prefix_instructions=graph.prefix_operations,
        instructions=len(graph.operations),
        memory=_memory(graph, plan, residency.peak_bytes),
    )
    return program, graph, plan


def _input_role(value: Value) -> InputRole:
    if value.role == "frozen":
        return "frozen"
    if value.role == "data":
        return "data"
    roles: dict[str, InputRole] = {LABELS_INPUT: "label", HYPERPARAMETERS_INPUT: "hyperparameter"}
    return roles[value.name]


def _state_role(value: Value):  # type: ignore[no-untyped-def]  # narrowed below, mypy cannot follow the set
    assert value.role in ("parameter", "running_statistic", "optimizer_state")
    return value.role


def _memory(graph: StepGraph, plan: ArenaPlan, frozen_bytes: int) -> MemoryPlan:
    parts = {"parameters": 0, "gradients": 0, "optimizer_state": 0, "activations": 0, "temporaries": 0}
    names = {
        "parameter": "parameters",
        "running_statistic": "parameters",
        "gradient": "gradients",
        "optimizer_state": "optimizer_state",
        "activation": "activations",
    }
    for placement in plan.placements.values():
        if placement.first <= plan.peak <= placement.last:
            parts[names.get(placement.value.role, "temporaries")] += placement.value.bytes
    return MemoryPlan(
        arena_bytes=plan.arena_bytes,
        live_bytes=plan.live_bytes,
        frozen_bytes=frozen_bytes,
        workspace_bytes_per_thread=WORKSPACE_BYTES_PER_THREAD,
        staging_bytes=sum(value.bytes for value in graph.inputs if value.role == "input"),
        parameters_bytes=parts["parameters"],
        gradients_bytes=parts["gradients"],
        optimizer_state_bytes=parts["optimizer_state"],
        activations_bytes=parts["activations"],
        temporaries_bytes=parts["temporaries"],
    )
