"""Losses: they end a training step and begin its backward pass."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Value
from edge_runtime.export.ir.layers import CapturedNode, Layer


def cross_entropy(builder: StepBuilder, logits: Value, labels: Value, smoothing: float) -> tuple[Value, Value]:
    """This execution's share of the mean cross-entropy of a step: the loss (scalar) and the gradient of `logits`."""
    loss = builder.new("loss", ())
    gradient = builder.new("logits_gradient", logits.shape)
    examples = logits.shape[0] * builder.micro_batches
    builder.graph.emit("cross_entropy", (logits, labels, examples, smoothing), (loss, gradient))
    return loss, gradient


def mean_squared_error(builder: StepBuilder, outputs: Value, targets: Value) -> tuple[Value, Value]:
    """This execution's share of a step's mean squared error: the loss (scalar) and the gradient of `outputs`."""
    loss = builder.new("loss", ())
    gradient = builder.new("outputs_gradient", outputs.shape)
    examples = outputs.shape[0] * builder.micro_batches
    builder.graph.emit("mean_squared_error", (outputs, targets, examples), (loss, gradient))
    return loss, gradient


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {}
EMITTERS: dict[str, Callable[[StepBuilder, Layer, Values], Value]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"cross_entropy": ((1, 0),), "mean_squared_error": ((1, 0),)}
