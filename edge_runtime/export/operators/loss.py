"""Losses: they end a training step and begin its backward pass."""

from __future__ import annotations

from collections.abc import Callable

from device_profiles.contract import HYPERPARAMETERS_INPUT
from edge_runtime.export.ir.builder import StepBuilder, Values
from edge_runtime.export.ir.graph import Value
from edge_runtime.export.ir.layers import CapturedNode, Layer

COUNTED = 0
"""Instead of a number of examples: as many as have a label that is not ignored."""


def cross_entropy(
    builder: StepBuilder, logits: Value, labels: Value, smoothing: float, positions: int | None = None
) -> tuple[Value, Value]:
    """This execution's share of the mean cross-entropy of a step: the loss (scalar) and the gradient of `logits`.

    With `positions` an example has as many rows of logits and labels, and the mean is over the labels that count. In a
    step of several executions the last of its hyperparameters says how many these are.
    """
    loss = builder.new("loss", ())
    rows = logits
    if positions is not None:
        rows = builder.reshaped(logits, (logits.shape[0] * positions, logits.shape[1] // positions))
    gradient = builder.new("logits_gradient", rows.shape)
    if positions is not None and builder.micro_batches > 1:
        given = builder.tensors[HYPERPARAMETERS_INPUT]
        arguments = (rows, labels, given, given.shape[0] - 1, smoothing)
        builder.graph.emit("cross_entropy_of_batch", arguments, (loss, gradient))
    else:
        examples = logits.shape[0] * builder.micro_batches if positions is None else COUNTED
        builder.graph.emit("cross_entropy", (rows, labels, examples, smoothing), (loss, gradient))
    return loss, gradient if positions is None else builder.reshaped(gradient, logits.shape)


def mean_squared_error(builder: StepBuilder, outputs: Value, targets: Value) -> tuple[Value, Value]:
    """This execution's share of a step's mean squared error: the loss (scalar) and the gradient of `outputs`."""
    loss = builder.new("loss", ())
    gradient = builder.new("outputs_gradient", outputs.shape)
    examples = outputs.shape[0] * builder.micro_batches
    builder.graph.emit("mean_squared_error", (outputs, targets, examples), (loss, gradient))
    return loss, gradient


CAPTURES: dict[str, Callable[[CapturedNode], Layer]] = {}
EMITTERS: dict[str, Callable[[StepBuilder, Layer, Values], Value]] = {}
IN_PLACE: dict[str, tuple[tuple[int, int], ...]] = dict.fromkeys(
    ("cross_entropy", "cross_entropy_of_batch", "mean_squared_error"), ((1, 0),)
)
