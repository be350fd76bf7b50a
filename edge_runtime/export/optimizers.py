"""The optimizer step of one parameter, emitted as soon as its gradient is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_profiles.contract import LEARNING_RATE_INPUT, optimizer_state_name
from edge_runtime.export.graph import Value

if TYPE_CHECKING:
    from edge_runtime.export.builder import StepBuilder


def emit_update(builder: StepBuilder, parameter: Value, gradient: Value) -> None:
    """Update `parameter` in place (torch.optim.SGD, with momentum where the optimizer has one)."""
    optimizer = builder.optimizer
    rate = builder.tensors[LEARNING_RATE_INPUT]
    momentum = optimizer_state(builder, "momentum", parameter) if optimizer.momentum > 0 else None
    builder.graph.emit(
        "sgd",
        (parameter, gradient, rate, momentum, optimizer.momentum, optimizer.weight_decay),
        (updated(parameter), None if momentum is None else updated(momentum)),
    )


def optimizer_state(builder: StepBuilder, slot: str, parameter: Value) -> Value:
    """A mutable buffer of the parameter's shape that starts at zero."""
    state = Value(optimizer_state_name(slot, parameter.name), parameter.shape, "optimizer_state")
    builder.graph.state.append(state)
    return state


def updated(value: Value) -> Value:
    """The value after an update in place."""
    return Value(f"{value.name}.new", value.shape, value.role, value.dtype, storage=value)
