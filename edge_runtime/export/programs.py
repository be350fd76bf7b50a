"""From a module to its programs: capture, cut, and one step graph with its arena plan for each block and purpose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from device_profiles.bundle import MemoryPlan, Optimizer, Program, ProgramInput, ProgramTensor
from device_profiles.contract import (
    IMAGES_INPUT,
    LABELS_INPUT,
    LEARNING_RATE_INPUT,
    WORKSPACE_BYTES_PER_THREAD,
    InputRole,
    Purpose,
    program_name,
    stand_in_name,
)
from device_profiles.errors import UsageError
from device_profiles.model import Model, Partition, TensorSpec, Unit
from edge_runtime.export.capture import capture
from edge_runtime.export.fusion import fuse
from edge_runtime.export.graph import StepGraph, Value
from edge_runtime.export.memory_plan import ArenaPlan, plan_arena
from edge_runtime.export.train_step import StandIn, build_evaluation, build_train_step
from edge_runtime.export.units import CutModel, cut


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockModel:
    """A captured and cut module: what every program of a bundle is built from."""

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


def build_programs(
    source: BlockModel, partition: Partition, *, blocks: tuple[int, ...], optimizer: Optimizer
) -> Iterator[tuple[Program, StepGraph, ArenaPlan]]:
    """`grow` and `eval` of every block in `blocks` (1-based), as (program, graph, plan)."""
    units = source.cut.units
    tensor_shapes = {spec.name: spec.shape for spec in source.tensors} | source.stand_in_shapes(partition)
    for index in blocks:
        block = partition.blocks[index - 1]
        active = units[block.first_unit : block.last_unit + 1]
        stand_ins = source.stand_ins(partition, index)
        grow = build_train_step(
            prefix=units[: block.first_unit],
            active=active,
            stand_ins=stand_ins,
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=tensor_shapes,
            input_name=source.cut.input,
            optimizer=optimizer,
        )
        yield _describe("grow", index, grow, source.batch, optimizer)
        evaluation = build_evaluation(
            units=units[: block.last_unit + 1],
            stand_ins=stand_ins,
            head=source.cut.head,
            shapes=source.cut.shapes,
            tensor_shapes=tensor_shapes,
            input_name=source.cut.input,
        )
        yield _describe("eval", index, evaluation, source.batch, None)


def _describe(
    purpose: Purpose, block: int, graph: StepGraph, batch: int, optimizer: Optimizer | None
) -> tuple[Program, StepGraph, ArenaPlan]:
    plan = plan_arena(graph)
    program = Program(
        name=program_name(purpose, block),
        purpose=purpose,
        block=block,
        batch=batch,
        micro_batch=batch,
        variant="default",
        optimizer=optimizer,
        inputs=tuple(
            ProgramInput(name=value.name, role=_input_role(value), dtype=value.dtype, shape=value.shape)
            for value in graph.inputs
        ),
        tensors=tuple(
            ProgramTensor(name=value.name, role=_state_role(value), dtype=value.dtype, shape=value.shape)
            for value in graph.state
        ),
        prefix_instructions=graph.prefix_operations,
        instructions=len(graph.operations),
        memory=_memory(graph, plan),
    )
    return program, graph, plan


def _input_role(value: Value) -> InputRole:
    if value.role == "frozen":
        return "frozen"
    roles: dict[str, InputRole] = {
        IMAGES_INPUT: "data",
        LABELS_INPUT: "label",
        LEARNING_RATE_INPUT: "hyperparameter",
    }
    return roles[value.name]


def _state_role(value: Value):  # type: ignore[no-untyped-def]  # narrowed below, mypy cannot follow the set
    assert value.role in ("parameter", "running_statistic", "optimizer_state")
    return value.role


def _memory(graph: StepGraph, plan: ArenaPlan) -> MemoryPlan:
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
    frozen = sum(value.bytes for value in graph.inputs if value.role == "frozen")
    staging = sum(math.prod(v.shape) * (8 if v.dtype == "int64" else 4) for v in graph.inputs if v.role == "input")
    return MemoryPlan(
        arena_bytes=plan.arena_bytes,
        live_bytes=plan.live_bytes,
        frozen_bytes=frozen,
        workspace_bytes_per_thread=WORKSPACE_BYTES_PER_THREAD,
        staging_bytes=staging,
        parameters_bytes=parts["parameters"],
        gradients_bytes=parts["gradients"],
        optimizer_state_bytes=parts["optimizer_state"],
        activations_bytes=parts["activations"],
        temporaries_bytes=parts["temporaries"],
    )
