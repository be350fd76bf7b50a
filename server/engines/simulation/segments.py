"""Pieces of a captured model as functions of their tensors, so that one piece serves any client's weights."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from device_profiles.model import Partition
from edge_runtime.export.models import default_dtype
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.targets.block_module import CapturedModule
from edge_runtime.export.targets.losses import check_loss
from edge_runtime.export.targets.native import choose_partition, initial_weights
from edge_runtime.export.targets.stand_in_graph import append_stand_in
from server.fleet.model import ModelSettings
from server.fleet.preparation import preparation_of

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the model. Called with tensors by their `state_dict` names and an input, it updates running
    statistics among them in place where it is in training mode."""

    module: fx.GraphModule
    names: tuple[str, ...]

    def __call__(self, state: State, x: Tensor) -> Tensor:
        """The piece's output."""
        output: Tensor = self.module(x, *(state[name] for name in self.names))
        return output


class ModelPieces:
    """A model of one width, cut into blocks; every piece is made once.

    Batches have `batch` examples: what a model says of shapes is fixed when it is captured.
    """

    def __init__(self, settings: ModelSettings, *, width: int | None = None, batch: int | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.batch = settings.batch if batch is None else batch
        self.module = create_model(
            settings.name,
            width=settings.width if width is None else width,
            classes=settings.classes,
            input_shape=settings.input_shape,
            preparation=preparation_of(settings),
        )
        self.source = BlockModel.of(
            self.module,
            name=settings.name,
            batch=self.batch,
            input_shape=settings.input_shape,
            classes=settings.classes,
            head=settings.head,
            input_dtype=settings.input_dtype or default_dtype(settings.name),
        )
        self.minimised = settings.minimised
        check_loss(self.minimised, self.source)
        self.partition: Partition = choose_partition(self.source, settings.name, blocks=None, partition=settings.cut)
        self._captured = CapturedModule(self.module, self.source)
        self._constants = {
            name: value
            for name, value in self._captured.tensors.items()
            if name not in frozenset(self.module.state_dict())
        }
        self._made: dict[object, Segment] = {}

    def cut_into(self, partition: Partition) -> ModelPieces:
        """The same captured model, cut into other blocks."""
        other = copy(self)
        other.partition = partition
        other._made = {}
        return other

    @property
    def blocks(self) -> int:
        """How many blocks the partition has."""
        return len(self.partition.blocks)

    def initial_weights(self) -> dict[str, Tensor]:
        """The model's tensors and freshly drawn stand-ins, as a bundle of the same settings has them."""
        return initial_weights(self.module, self.source, self.partition)

    def block_names(self, block: int) -> frozenset[str]:
        """Tensors that belong to block `block` (1-based)."""
        chosen = self.partition.blocks[block - 1]
        units = self.source.cut.units[chosen.first_unit : chosen.last_unit + 1]
        return frozenset(name for unit in units for name in unit.tensors)

    def run(self, first: int, last: int, *, training: bool) -> Segment:
        """Blocks `first` to `last` (1-based), from one activation to another."""
        blocks = self.partition.blocks
        return self.units(blocks[first - 1].first_unit, blocks[last - 1].last_unit, training=training)

    def units(self, first: int, last: int, *, training: bool) -> Segment:
        """Units `first` to `last` (0-based), from one activation to another."""
        key = ("units", first, last, training)
        if key not in self._made:
            units = self.source.cut.units
            start, end = units[first].input, units[last].output
            graph = fx.Graph()
            graph.output(self._captured.copy(graph, start, end, graph.placeholder("x"), training=training))
            self._made[key] = _segment(graph, self._constants)
        return self._made[key]

    def behind(self, block: int, *, training: bool) -> Segment:
        """The output module behind block `block`: stand-ins for the blocks that follow, and the head."""
        key = ("behind", block, training)
        if key not in self._made:
            graph = fx.Graph()
            x = graph.placeholder("x")
            for stand_in in self.source.stand_ins(self.partition, block):
                x = append_stand_in(graph, stand_in, x)
            head = self.source.cut.head
            graph.output(self._captured.copy(graph, head.input, head.output, x, training=training))
            self._made[key] = _segment(graph, self._constants)
        return self._made[key]


def _segment(graph: fx.Graph, constants: Mapping[str, Tensor]) -> Segment:
    """Turn the tensors that the graph reads into arguments, but for `constants`; batches that BatchNorm counts are not
    counted."""
    for node in list(graph.nodes):
        if node.op == "call_function" and any(
            argument.op == "get_attr" and str(argument.target).endswith("num_batches_tracked")
            for argument in node.all_input_nodes
        ):
            graph.erase_node(node)
    names = dict.fromkeys(
        str(node.target)
        for node in graph.nodes
        if node.op == "get_attr" and node.users and node.target not in constants
    )
    first = next(node for node in graph.nodes if node.op == "placeholder")
    after = first
    placeholders = {}
    for position, name in enumerate(names):
        with graph.inserting_after(after):
            after = placeholders[name] = graph.placeholder(f"t{position}")
    for node in list(graph.nodes):
        if node.op == "get_attr" and node.target not in constants:
            if str(node.target) in placeholders:
                node.replace_all_uses_with(placeholders[str(node.target)])
            graph.erase_node(node)
    return Segment(fx.GraphModule(dict(constants), graph), tuple(names))
