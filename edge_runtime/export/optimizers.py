"""The optimizer step of one parameter, emitted as soon as its gradient is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_profiles.contract import HYPERPARAMETERS_INPUT, DType, optimizer_state_name
from edge_runtime.export.graph import Argument, Value

if TYPE_CHECKING:
    from edge_runtime.export.builder import StepBuilder


def emit_update(builder: StepBuilder, parameter: Value, gradient: Value) -> None:
    """Update `parameter` in place (torch.optim.SGD, with momentum where the optimizer has one)."""
    momentum = _momentum(builder, parameter)
    builder.graph.emit(
        "sgd",
        (parameter, gradient, builder.tensors[HYPERPARAMETERS_INPUT], momentum),
        (updated(parameter), None if momentum is None else updated(momentum)),
    )


def emit_fused_update(builder: StepBuilder, operator: str, arguments: tuple[Argument, ...], parameter: Value) -> None:
    """A gradient and the update with it in one operation, so that the gradient never exists as a whole.

    `operator` is a kernel that computes a weight's gradient from `arguments`; there is one `<operator>_sgd` for each.
    """
    momentum = _momentum(builder, parameter)
    builder.graph.emit(
        f"{operator}_sgd",
        (*arguments, parameter, builder.tensors[HYPERPARAMETERS_INPUT], momentum),
        (updated(parameter), None if momentum is None else updated(momentum)),
    )


def _momentum(builder: StepBuilder, parameter: Value) -> Value | None:
    """The momentum of a parameter. Micro-batches are accumulated in it, so they need one in any case."""
    optimizer = builder.optimizer
    if optimizer.momentum == 0 and builder.micro_batches == 1:
        return None
    return optimizer_state(builder, "momentum", parameter, optimizer.momentum_dtype)


def optimizer_state(builder: StepBuilder, slot: str, parameter: Value, dtype: DType = "float32") -> Value:
    """A mutable buffer of the parameter's shape that starts at zero."""
    state = Value(optimizer_state_name(slot, parameter.name), parameter.shape, "optimizer_state", dtype)
    builder.graph.state.append(state)
    return state


def updated(value: Value) -> Value:
    """The value after an update in place."""
    return Value(f"{value.name}.new", value.shape, value.role, value.dtype, storage=value)
