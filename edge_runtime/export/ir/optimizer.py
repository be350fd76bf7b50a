"""What a step asks of an optimizer, and what an optimizer may use of the step; `optimizers/` has the optimizers."""

from __future__ import annotations

from typing import Protocol

from edge_runtime.export.ir.graph import Argument, Pairs, StepGraph, Value, ValueRole


class UnfinishedStep(Protocol):
    """The step under construction, as its optimizer sees it."""

    graph: StepGraph
    tensors: dict[str, Value]

    def tensor(self, name: str, role: ValueRole) -> Value:
        """The value of a `state_dict` tensor."""

    def new(self, hint: str, shape: tuple[int, ...], role: ValueRole = "temporary") -> Value:
        """A fresh value."""

    def gradient_of(self, parameter: Value) -> Value:
        """A fresh value for a parameter's gradient."""


class StepOptimizer(Protocol):
    """What is done with the gradients of one program."""

    @property
    def micro_batches(self) -> int:
        """Executions that make up one step."""

    @property
    def hyperparameters(self) -> int:
        """Numbers that the device fills in for every execution."""

    @property
    def sums_apart(self) -> bool:
        """Whether every gradient has a sum of its own over the micro-batches of a step."""

    @property
    def waits(self) -> bool:
        """Whether no parameter is updated before every gradient is complete."""

    @property
    def fuses_update(self) -> bool:
        """Whether a gradient and the update with it can be one operation."""

    def add_to_sum(self, step: UnfinishedStep, parameter: Value, gradient: Value) -> Value:
        """Add a micro-batch's gradient to those of the step so far; returns their sum."""

    def emit_update(self, step: UnfinishedStep, parameter: Value, gradient: Value) -> None:
        """Update `parameter` in place."""

    def emit_fused_update(
        self, step: UnfinishedStep, operator: str, arguments: tuple[Argument, ...], parameter: Value
    ) -> None:
        """Compute a gradient by `operator` and update `parameter` with it, in one operation."""

    def emit_waiting_updates(self, step: UnfinishedStep, gradients: Pairs) -> None:
        """All updates, once every gradient is complete."""
