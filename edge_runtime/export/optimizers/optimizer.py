"""What all optimizers have in common: sums over micro-batches, clipping, and the state of a parameter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from device_profiles.contract import HYPERPARAMETERS_INPUT, DType, optimizer_state_name
from device_profiles.optimizer import Optimizer
from edge_runtime.export.ir.graph import END_UNLESS, Argument, Value, updated

if TYPE_CHECKING:
    from edge_runtime.export.ir.builder import StepBuilder


class UpdateRule(ABC):
    """An optimizer with its settings, for steps of `micro_batches` executions (`Updates` in `ir/builder.py`)."""

    fuses = False

    def __init__(self, settings: Optimizer, micro_batches: int) -> None:
        self.settings = settings
        self.micro_batches = micro_batches
        self.sums_apart = micro_batches > 1 and not settings.sums_in_momentum
        self.waits = self.sums_apart or settings.clip_norm > 0

    @abstractmethod
    def update(self, builder: StepBuilder, parameter: Value, gradient: Value) -> None:
        """Update `parameter` in place, as the optimizer of the same name in torch.optim does."""

    def fused_update(
        self, builder: StepBuilder, operator: str, arguments: tuple[Argument, ...], parameter: Value
    ) -> None:
        """Only optimizers that say `fuses` are asked."""
        raise NotImplementedError(f"{self.settings.name} takes no gradient in the operation that computes it")

    def add_to_sum(self, builder: StepBuilder, parameter: Value, gradient: Value) -> Value:
        """Add a micro-batch's gradient to those of the step so far, which lie in the arena from one execution to the
        next; returns their sum."""
        total = Value(optimizer_state_name("gradient_sum", parameter.name), parameter.shape, "gradient_sum")
        builder.graph.state.append(total)
        builder.graph.emit("add", (total, gradient, False), (updated(total),))
        return total

    def waiting_updates(self, builder: StepBuilder, gradients: list[tuple[Value, Value]]) -> None:
        """All updates, once every (parameter, gradient) pair's gradient is complete.

        Every gradient lives until then: this costs the bytes of all gradients, where else one lives at a time. Where
        they are sums over micro-batches, only the last execution of a step goes on from here, and leaves the sums at
        zero.
        """
        if self.sums_apart:
            last = Value("is_last", (), "temporary", "bool")
            hyperparameters = builder.tensors[HYPERPARAMETERS_INPUT]
            builder.graph.emit("is_set", (hyperparameters, hyperparameters.shape[0] - 1), (last,))
            builder.graph.emit(END_UNLESS, (last,), ())
        factor = None
        if self.settings.clip_norm > 0:
            factor = builder.new("clip_factor", ())
            builder.graph.emit("clip_factor", (self.settings.clip_norm, *(g for _, g in gradients)), (factor,))
        for parameter, gradient in gradients:
            complete = gradient
            if factor is not None:
                complete = updated(gradient) if self.sums_apart else builder.gradient_of(parameter)
                builder.graph.emit("scale_by", (gradient, factor), (complete,))
            self.update(builder, parameter, complete)
            if self.sums_apart:
                builder.graph.emit("fill", (0.0,), (updated(gradient),))


def optimizer_state(builder: StepBuilder, slot: str, parameter: Value, dtype: DType = "float32") -> Value:
    """A mutable buffer of the parameter's shape that starts at zero."""
    state = Value(optimizer_state_name(slot, parameter.name), parameter.shape, "optimizer_state", dtype)
    builder.graph.state.append(state)
    return state
