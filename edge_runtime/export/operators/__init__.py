"""Every operator that this runtime trains, a module for each family.

A family says how its operators are captured from PyTorch's graph (`CAPTURES`, by ATen name without overload), how a
captured layer is emitted with its gradient rule (`EMITTERS`, by layer kind), and which output of its kernels may
overwrite which argument (`IN_PLACE`). An emitter serves training and inference alike: `StepBuilder` knows the mode.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.faults import faults_named
from edge_runtime.export.ir.graph import Value
from edge_runtime.export.ir.layers import CapturedNode, Layer
from edge_runtime.export.operators import (
    activation,
    attention,
    convolution,
    dropout,
    elementwise,
    embedding,
    expression,
    gelu,
    layer_norm,
    limits,
    linear,
    loss,
    normalization,
    ordering,
    places,
    pooling,
    products,
    reduction,
    resample,
    selection,
    shape,
    statistics,
    take,
    volume,
)

Capture = Callable[[CapturedNode], Layer]
"""Raises NotCovered for arguments that are not covered."""
Emitter = Callable[[StepBuilder, Layer, Values], Value]

FAMILIES = (
    activation,
    attention,
    convolution,
    dropout,
    elementwise,
    embedding,
    expression,
    gelu,
    layer_norm,
    limits,
    linear,
    loss,
    normalization,
    ordering,
    places,
    pooling,
    products,
    reduction,
    resample,
    selection,
    shape,
    statistics,
    take,
    volume,
)

CAPTURES: dict[str, Capture] = {name: rule for family in FAMILIES for name, rule in family.CAPTURES.items()}
EMITTERS: dict[str, Emitter] = {kind: rule for family in FAMILIES for kind, rule in family.EMITTERS.items()}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {
    kernel: pairs for family in FAMILIES for kernel, pairs in family.IN_PLACE.items()
}
"""Per kernel, pairs (output, argument): that output may overwrite that argument when nothing reads it later."""
IDENTITIES: dict[str, Callable[[CapturedNode], bool]] = {
    "contiguous": lambda call: True,
    "alias": lambda call: True,
    "clone": lambda call: True,
    **dict.fromkeys(("to", "_to_copy", "type_as"), lambda call: call.keeps_type or call.counts_truth),
    "log_softmax": lambda call: call.is_the_end and call.arguments["dim"] % len(call.output_shape) == 1,
    **dict.fromkeys(
        ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
        lambda call: float(call.arguments["p"]) == 0.0 or not call.arguments["train"],
    ),
}
"""ATen operators that leave their first argument as it is, and when."""


def emit_layer(builder: StepBuilder, layer: Layer, values: Values) -> Value:
    """Emit a layer in the builder's mode; returns its output."""
    with faults_named(f"module '{layer.module}': the program of its {layer.kind} could not be built"):
        return EMITTERS[layer.kind](builder, layer, values)
