"""Programs that verification runs in its own process: the training step of the whole model as one block."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from device_profiles.manifest import Loss, Optimizer
from edge_runtime.device import _native
from edge_runtime.export.cut.units import UnitLayers
from edge_runtime.export.emit.pte import emit_program
from edge_runtime.export.ir.graph import StepGraph
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.optimizers import optimizer_of
from edge_runtime.export.plan.arena import ArenaPlan, plan_arena
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.step.train_step import StepVariant, build_train_step

MOMENTUM = 0.5
"""SGD's momentum of the tried step: it starts at zero, so that it is the gradient after one step."""


def step_program(source: BlockModel, loss: Loss) -> tuple[StepGraph, ArenaPlan]:
    """The training step of the whole model, without dropout."""
    graph = build_train_step(
        prefix=(),
        active=tuple(_undropped(unit) for unit in source.cut.units),
        stand_ins=(),
        head=_undropped(source.cut.head),
        shapes=source.cut.shapes,
        tensor_shapes=source.own_shapes,
        optimizer=optimizer_of(Optimizer(name="sgd", momentum=MOMENTUM)),
        variant=StepVariant(),
        loss=loss,
        positions=source.positions,
        input_dtype=source.input_dtype,
        fixed=source.fixed,
    )
    return graph, plan_arena(graph)


def _undropped(unit: UnitLayers) -> UnitLayers:
    return replace(unit, layers=tuple(undropped(layer) for layer in unit.layers))


def undropped(layer: Layer) -> Layer:
    """The layer without dropout."""
    if "dropout" not in layer.attributes:
        return layer
    return replace(layer, attributes={**layer.attributes, "dropout": 0.0, "dropout_layer": 0})


class Native:
    """A program in this process, with its inputs and state filled by name."""

    def __init__(self, graph: StepGraph, plan: ArenaPlan, folder: Path, weights: dict[str, Tensor]) -> None:
        path = folder / "tried.pte"
        path.write_bytes(emit_program(graph, plan))
        self._graph = graph
        self.program = _native.Program(str(path), torch.get_num_threads(), 0)
        for value in graph.state:
            known = weights.get(value.name)
            self.program.buffer(value.name)[...] = 0 if known is None else known.numpy()
        self._kept = []
        for index, value in enumerate(graph.inputs):
            known = weights.get(value.name)
            array = np.zeros(value.shape, value.dtype) if known is None else np.ascontiguousarray(known.numpy())
            self._kept.append(array)
            self.program.set_input(index, array)

    def run(self, inputs: Tensor) -> list[Tensor]:
        """Copies of the outputs for a batch."""
        (data,) = self._graph.data
        self.program.buffer(data.name)[...] = inputs.numpy()
        self.program.execute()
        return [torch.from_numpy(np.array(self.program.output(i))) for i in range(len(self._graph.outputs))]

    def buffer(self, name: str) -> Tensor:
        """A copy of a tensor of the program's state."""
        return torch.from_numpy(np.array(self.program.buffer(name)))
