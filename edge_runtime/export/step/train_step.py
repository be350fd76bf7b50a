"""Build the programs of one block: its training step (prefix, block, output module, loss, backward, update), its
distillation into a stand-in, and evaluations.

Differentiation happens here, layer by layer, at export time (see `builder.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType

from device_profiles.contract import (
    FEATURES_INPUT,
    HYPERPARAMETERS_INPUT,
    IMAGES_INPUT,
    LABELS_INPUT,
    DType,
)
from device_profiles.manifest import Loss
from edge_runtime.export.cut.missing import StandIn
from edge_runtime.export.cut.names import name_again
from edge_runtime.export.cut.units import UnitLayers
from edge_runtime.export.ir.builder import Shapes, StepBuilder, Values
from edge_runtime.export.ir.graph import END_UNLESS, Operation, StepGraph, Value
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.ir.optimizer import StepOptimizer
from edge_runtime.export.operators import emit_layer
from edge_runtime.export.operators.loss import cross_entropy, mean_squared_error
from edge_runtime.export.step.inference import emit_prefix

_CROSS_ENTROPY = Loss()


@dataclass(frozen=True, kw_only=True, slots=True)
class StepVariant:
    """What a training step may trade: bytes against seconds, never against its result.

    Attributes:
        prefix_rows: examples of the frozen prefix at a time.
        teacher_rows: examples of a distillation's teacher at a time.
        recompute: outputs of layers that are computed again in the backward pass instead of kept.
        keep: outputs of layers that are kept although they could be computed again cheaply.
        forgetful: what is computed again is not held for its next reader.
        cached_prefix: the data are the prefix's outputs, computed beforehand.
    """

    prefix_rows: int = 1 << 30
    teacher_rows: int = 1 << 30
    recompute: frozenset[str] = frozenset()
    keep: frozenset[str] = frozenset()
    forgetful: bool = False
    cached_prefix: bool = False


def build_train_step(
    *,
    prefix: tuple[UnitLayers, ...],
    active: tuple[UnitLayers, ...],
    stand_ins: tuple[StandIn, ...],
    head: UnitLayers,
    shapes: Shapes,
    tensor_shapes: Shapes,
    optimizer: StepOptimizer,
    variant: StepVariant,
    loss: Loss = _CROSS_ENTROPY,
    positions: int | None = None,
    input_dtype: DType = "float32",
    fixed: frozenset[str] = frozenset(),
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> StepGraph:
    """One training step: `prefix` frozen, `active` (it may be empty) and the output module (`stand_ins` + `head`)
    trained, but for the tensors in `fixed`. What is trained has its other names (`aliases`) as well.

    Data: the examples [batch, ...], or with `variant.cached_prefix` the block's inputs. Program inputs: labels [batch]
    int64, or [batch, positions] where each position has its own (with the mean squared error: targets [batch, outputs]
    float32), hyperparameters, then the frozen tensors and what dropout needs. Output: the loss, scalar.
    """
    builder = _step_builder(tensor_shapes, optimizer, variant, fixed)
    start = active[0].input if active else prefix[-1].output
    batch = shapes[start][0]
    if loss.name == "mse":
        labels = _input(builder, LABELS_INPUT, (batch, *head.layers[-1].shape[1:]))
    else:
        labels = _input(builder, LABELS_INPUT, (batch,) if positions is None else (batch, positions), "int64")
    counted = positions is not None and builder.micro_batches > 1
    _input(builder, HYPERPARAMETERS_INPUT, (optimizer.hyperparameters + counted,))
    values = {start: _block_input(builder, prefix, start, shapes, variant, input_dtype)}
    trained = [layer for unit in active for layer in unit.layers]
    trained += output_module(stand_ins, head)
    _emit_trained(builder, trained, values, variant)
    logits = values[trained[-1].output]
    if loss.name == "mse":
        value, gradient = mean_squared_error(builder, logits, labels)
    else:
        value, gradient = cross_entropy(builder, logits, labels, loss.label_smoothing, positions)
    builder.graph.outputs.append(value)
    builder.backward(logits, gradient)
    drop_unused(builder.graph)
    name_again(builder.graph, aliases)
    return builder.graph


def build_distillation(
    *,
    prefix: tuple[UnitLayers, ...],
    block: tuple[UnitLayers, ...],
    student: StandIn,
    stand_ins: tuple[StandIn, ...],
    head: UnitLayers,
    shapes: Shapes,
    tensor_shapes: Shapes,
    optimizer: StepOptimizer,
    variant: StepVariant,
    input_dtype: DType = "float32",
    fixed: frozenset[str] = frozenset(),
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> StepGraph:
    """One step that makes `student`, the stand-in of `block`, do what the block does.

    Teacher: `block`, `stand_ins` (of the blocks behind it) and `head`, in inference mode. The student has its stand-in
    in the block's place, and the same frozen tensors behind it; where nothing but the head is behind it, the head is
    trained with it, while the teacher keeps the one of the weights file. Output: the mean squared error between the
    logits of both. Data and inputs are those of `build_train_step`, without labels.
    """
    builder = _step_builder(tensor_shapes, optimizer, variant, fixed)
    _input(builder, HYPERPARAMETERS_INPUT, (optimizer.hyperparameters,))
    start = block[0].input
    features = _block_input(builder, prefix, start, shapes, variant, input_dtype)
    behind = output_module(stand_ins, head)
    teacher = [layer for unit in block for layer in unit.layers] + behind
    logits = teacher[-1].output
    wanted = emit_prefix(builder, teacher, features, input_name=start, output_name=logits, rows=variant.teacher_rows)
    values = {start: features}
    _emit_trained(builder, list(student.layers), values, variant)
    with nullcontext() if not stand_ins else builder.passing():
        _emit_trained(builder, behind, values, variant)
    value, gradient = mean_squared_error(builder, values[logits], wanted)
    builder.graph.outputs.append(value)
    builder.backward(values[logits], gradient)
    drop_unused(builder.graph)
    name_again(builder.graph, aliases)
    return builder.graph


def build_evaluation(
    *,
    units: tuple[UnitLayers, ...],
    stand_ins: tuple[StandIn, ...],
    head: UnitLayers,
    shapes: Shapes,
    tensor_shapes: Shapes,
    rows: int,
    input_dtype: DType = "float32",
) -> StepGraph:
    """Inference of `units` and an output module: images -> logits [batch, classes]; every tensor is an input."""
    builder = StepBuilder(tensor_shapes=tensor_shapes)
    images = _data(builder, IMAGES_INPUT, shapes[units[0].input], input_dtype)
    layers = [layer for unit in units for layer in unit.layers]
    layers += output_module(stand_ins, head)
    logits = emit_prefix(builder, layers, images, input_name=units[0].input, output_name=layers[-1].output, rows=rows)
    builder.graph.outputs.append(logits)
    return builder.graph


def build_features(
    *,
    prefix: tuple[UnitLayers, ...],
    shapes: Shapes,
    tensor_shapes: Shapes,
    rows: int,
    input_dtype: DType = "float32",
) -> StepGraph:
    """Inference of `prefix`: images -> the inputs of the block behind it [batch, ...]."""
    builder = StepBuilder(tensor_shapes=tensor_shapes)
    builder.graph.outputs.append(_prefix(builder, prefix, shapes, rows, input_dtype))
    builder.graph.prefix_operations = len(builder.graph.operations)
    return builder.graph


def _step_builder(
    tensor_shapes: Shapes, optimizer: StepOptimizer, variant: StepVariant, fixed: frozenset[str]
) -> StepBuilder:
    return StepBuilder(
        tensor_shapes=tensor_shapes,
        optimizer=optimizer,
        recompute=variant.recompute,
        forgetful=variant.forgetful,
        fixed=fixed,
    )


def _block_input(
    builder: StepBuilder,
    prefix: tuple[UnitLayers, ...],
    start: str,
    shapes: Shapes,
    variant: StepVariant,
    input_dtype: DType,
) -> Value:
    """What the block behind `prefix` starts from, activation `start`: the data themselves, or the prefix's outputs."""
    if not prefix:
        current = _data(builder, IMAGES_INPUT, shapes[start], input_dtype)
    elif variant.cached_prefix:
        current = _data(builder, FEATURES_INPUT, shapes[start])
    else:
        current = _prefix(builder, prefix, shapes, variant.prefix_rows, input_dtype)
    builder.graph.prefix_operations = len(builder.graph.operations)
    return current


def _emit_trained(builder: StepBuilder, layers: list[Layer], values: Values, variant: StepVariant) -> None:
    """Emit layers that are differentiated; adds their outputs to `values`."""
    for layer in layers:
        values[layer.output] = emit_layer(builder, layer, values)
        if layer.output in variant.keep:
            builder.keep(values[layer.output])


def _prefix(builder: StepBuilder, prefix: tuple[UnitLayers, ...], shapes: Shapes, rows: int, dtype: DType) -> Value:
    images = _data(builder, IMAGES_INPUT, shapes[prefix[0].input], dtype)
    layers = [layer for unit in prefix for layer in unit.layers]
    return emit_prefix(builder, layers, images, input_name=prefix[0].input, output_name=prefix[-1].output, rows=rows)


def output_module(stand_ins: tuple[StandIn, ...], head: UnitLayers) -> list[Layer]:
    """What stands in for the blocks behind the last one there is, and the model's own head."""
    return [*(layer for stand_in in stand_ins for layer in stand_in.layers), *head.layers]


def _data(builder: StepBuilder, name: str, shape: tuple[int, ...], dtype: DType = "float32") -> Value:
    value = Value(name, shape, "data", dtype)
    builder.graph.data.append(value)
    return value


def _input(builder: StepBuilder, name: str, shape: tuple[int, ...], dtype: DType = "float32") -> Value:
    value = Value(name, shape, "input", dtype)
    builder.graph.inputs.append(value)
    builder.tensors[name] = value
    return value


def drop_unused(graph: StepGraph) -> None:
    """Remove operations none of whose results are read, such as a recomputation that turned out unneeded."""
    kept: list[Operation] = []
    needed = {value.root for value in graph.outputs} | set(graph.state)
    prefix = 0
    for position in range(len(graph.operations) - 1, -1, -1):
        operation = graph.operations[position]
        if operation.operator == END_UNLESS or any(output.root in needed for output in operation.writes):
            kept.append(operation)
            needed.update(value.root for value in operation.reads)
            prefix += position < graph.prefix_operations
    graph.operations = kept[::-1]
    graph.prefix_operations = prefix
