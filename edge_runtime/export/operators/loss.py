"""Losses: they end a training step and begin its backward pass."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.export.builder import StepBuilder, Values
from edge_runtime.export.graph import Value
from edge_runtime.export.layers import CapturedNode, Layer


def cross_entropy(builder: StepBuilder, logits: Value, labels: Value) -> tuple[Value, Value]:
    """This execution's share of the mean cross-entropy of a step: the loss (scalar) and the gradient of `logits`."""
    loss = builder.new("loss", ())
    gradient = builder.new("logits_gradient", logits.shape)
    builder.graph.emit("cross_entropy", (logits, labels, logits.shape[0] * builder.micro_batches), (loss, gradient))
    return loss, gradient


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {}
EMITTERS: dict[str, Callable[[StepBuilder, Layer, Values], Value]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = {"cross_entropy": ((1, 0),)}
