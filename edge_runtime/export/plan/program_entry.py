"""What the manifest says of a program that was built and planned."""

from __future__ import annotations

from device_profiles.contract import (
    HYPERPARAMETERS_INPUT,
    LABELS_INPUT,
    RANDOM_INPUT,
    WORKSPACE_BYTES_PER_THREAD,
    DType,
    InputRole,
    Variant,
)
from device_profiles.manifest import Loss, MemoryPlan, Optimizer, Program, ProgramInput, ProgramTensor
from device_profiles.model import Partition
from device_profiles.work import ProgramWork, block_of, label
from edge_runtime.export.ir.graph import PERSISTENT_ROLES, StepGraph, Value
from edge_runtime.export.plan.arena import ArenaPlan, aligned
from edge_runtime.export.plan.frozen_residency import staying
from edge_runtime.export.plan.loads import loads_of

PlannedProgram = tuple[Program, StepGraph, ArenaPlan]


def planned_program(
    work: ProgramWork,
    partition: Partition,
    graph: StepGraph,
    plan: ArenaPlan,
    *,
    batch: int,
    micro_batch: int,
    variant: Variant,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
) -> PlannedProgram:
    """The program's entry, with the graph and the plan that it describes; `work` is about blocks of `partition`."""
    program = Program(
        name=label(work, partition, variant),
        work=work,
        block=block_of(work, partition),
        batch=batch,
        micro_batch=micro_batch,
        variant=variant,
        optimizer=optimizer,
        loss=Loss() if loss is None else loss,
        inputs=tuple(_input(value, plan) for value in (*graph.data, *graph.inputs)),
        tensors=tuple(
            ProgramTensor(name=value.name, role=_state_role(value), dtype=_dtype(value), shape=value.shape)
            for value in graph.state
        ),
        prefix_instructions=graph.prefix_operations,
        instructions=len(graph.operations),
        memory=memory_of(graph, plan),
        loads=loads_of(graph, micro_batches=batch // micro_batch),
    )
    return program, graph, plan


def _input(value: Value, plan: ArenaPlan) -> ProgramInput:
    anew = plan.placements.get(value) if value.role == "frozen" else None
    return ProgramInput(
        name=value.name,
        role=_input_role(value),
        dtype=_dtype(value),
        shape=value.shape,
        read_before=() if anew is None else tuple(first for first, _ in anew.spans),
        arena_offset=None if anew is None else anew.offset,
    )


def _dtype(value: Value) -> DType:
    assert value.dtype != "bool"  # neither input nor state is
    return value.dtype


def _input_role(value: Value) -> InputRole:
    if value.role == "frozen":
        return "frozen"
    if value.role == "data":
        return "data"
    roles: dict[str, InputRole] = {
        LABELS_INPUT: "label",
        HYPERPARAMETERS_INPUT: "hyperparameter",
        RANDOM_INPUT: "random",
    }
    return roles[value.name]


def _state_role(value: Value):  # type: ignore[no-untyped-def]  # narrowed below, mypy cannot follow the set
    assert value.role in PERSISTENT_ROLES
    return value.role


def memory_of(graph: StepGraph, plan: ArenaPlan) -> MemoryPlan:
    """The plan of a graph as a manifest states it."""
    parts = {"parameters": 0, "gradients": 0, "optimizer_state": 0, "activations": 0, "temporaries": 0}
    names = {
        "parameter": "parameters",
        "running_statistic": "parameters",
        "gradient": "gradients",
        "gradient_sum": "gradients",
        "optimizer_state": "optimizer_state",
        "activation": "activations",
    }
    for placement in plan.placements.values():
        if placement.alive_at(plan.peak):
            parts[names.get(placement.value.role, "temporaries")] += placement.value.bytes
    return MemoryPlan(
        arena_bytes=plan.arena_bytes,
        live_bytes=plan.live_bytes,
        frozen_bytes=sum(aligned(value.bytes) for value in staying(graph)),
        workspace_bytes_per_thread=WORKSPACE_BYTES_PER_THREAD,
        staging_bytes=sum(value.bytes for value in graph.inputs if value.role == "input"),
        parameters_bytes=parts["parameters"],
        gradients_bytes=parts["gradients"],
        optimizer_state_bytes=parts["optimizer_state"],
        activations_bytes=parts["activations"],
        temporaries_bytes=parts["temporaries"],
    )
