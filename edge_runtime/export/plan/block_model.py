"""A module that is captured and cut: what every program of a bundle is built from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from device_profiles.contract import DType, stand_in_name
from device_profiles.errors import UsageError
from device_profiles.model import Block, Lora, Model, Normalisation, Partition, TensorSpec, Unit
from edge_runtime.export.capture.capture import capture
from edge_runtime.export.capture.tracing import OneValueError
from edge_runtime.export.cut.missing import MissingBlock, StandIn
from edge_runtime.export.cut.names import aliases_in
from edge_runtime.export.cut.rows import in_rows
from edge_runtime.export.cut.stand_ins import stand_in
from edge_runtime.export.cut.tied import second_names
from edge_runtime.export.cut.units import CutModel, cut
from edge_runtime.export.models.lora import lora_of
from edge_runtime.export.models.normalised import normalisation_of
from edge_runtime.export.operators.view import VIEW_KINDS
from edge_runtime.export.passes.fusion import fuse
from edge_runtime.export.passes.kept_sums import keep_sums
from edge_runtime.export.passes.views import fold_views

_MOVES = VIEW_KINDS | {"to_float", "to_whole", "take", "cat"}
"""Layers behind which tokens are still tokens, at other places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockModel:
    """A captured and cut module: what every program of a bundle is built from. `batch` is of one execution."""

    name: str
    cut: CutModel
    input_shape: tuple[int, ...]
    classes: int
    positions: int | None = None
    """Tokens or pixels of an example with logits of their own; None where an example has one row of them."""
    batch: int
    tensors: tuple[TensorSpec, ...]
    input_dtype: DType = "float32"
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names of tensors that several modules share, and the name that programs know them by."""
    log_probabilities: bool = False
    head: str | None = None
    normalisation: Normalisation | None = None
    lora: Lora | None = None
    narrow: frozenset[str] = frozenset()
    """Weights that no program trains and the file keeps in bfloat16 (see `narrowed.py`)."""

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
        in_one_form, positions = in_rows(captured, classes)
        model = keep_sums(fold_views(fuse(in_one_form)))
        units = cut(model, classes=classes, positions=positions, head=head)
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
            positions=positions,
            batch=batch,
            tensors=specs,
            input_dtype=input_dtype,
            constants=model.constants,
            fixed=model.fixed,
            aliases=aliases_in(module, units),
            log_probabilities=model.log_probabilities,
            head=head,
            normalisation=normalisation_of(module),
            lora=lora_of(module),
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
            positions=self.positions,
            units=tuple(units),
            head=self.cut.head.tensors,
            tensors=self.tensors,
            input_dtype=self.input_dtype,
            vocabulary=self._vocabulary() if self.input_dtype == "int64" else None,
            normalisation=self.normalisation,
            lora=self.lora,
        )

    def _vocabulary(self) -> int:
        """How many different tokens the model takes: rows of the smallest table that they are looked up in."""
        shapes = {spec.name: spec.shape for spec in self.tensors}
        tokens, tables = {self.cut.input}, []
        for layer in (layer for unit in self.cut.units for layer in unit.layers):
            if tokens.isdisjoint(layer.inputs):
                continue
            if layer.kind == "embedding":
                tables.append(layer.tensors[0])
            elif layer.kind in _MOVES:
                tokens.add(layer.output)
        if not tables:
            raise UsageError(
                "the model looks its tokens up in no table as they come, and how many there are is not known",
                field="input_dtype",
                value="int64",
                remedy="look them up in an nn.Embedding",
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
            last_before=start in self.cut.features_last,
            last_after=end in self.cut.features_last,
        )
        return stand_in(missing)
