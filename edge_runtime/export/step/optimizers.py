"""The optimizer step of one parameter, emitted as soon as its gradient is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_profiles.contract import HYPERPARAMETERS_INPUT, DType, optimizer_state_name
from edge_runtime.export.ir.graph import END_UNLESS, Argument, Value

if TYPE_CHECKING:
    from edge_runtime.export.ir.builder import StepBuilder


def emit_update(builder: StepBuilder, parameter: Value, gradient: Value) -> None:
    """Update `parameter` in place, as torch.optim's SGD or AdamW does."""
    if builder.optimizer.name == "adamw":
        _emit_adamw(builder, parameter, gradient)
        return
    momentum = _momentum(builder, parameter)
    builder.graph.emit(
        "sgd",
        (parameter, gradient, builder.tensors[HYPERPARAMETERS_INPUT], momentum, *_start(builder, parameter)),
        (updated(parameter), None if momentum is None else updated(momentum)),
    )


def _emit_adamw(builder: StepBuilder, parameter: Value, gradient: Value) -> None:
    optimizer = builder.optimizer
    first, second = (optimizer_state(builder, slot, parameter) for slot in ("first_moment", "second_moment"))
    hyperparameters = builder.tensors[HYPERPARAMETERS_INPUT]
    constants = (optimizer.beta1, optimizer.beta2, optimizer.eps)
    builder.graph.emit(
        "adamw",
        (parameter, gradient, hyperparameters, first, second, *constants),
        (updated(parameter), updated(first), updated(second)),
    )


def add_to_sum(builder: StepBuilder, parameter: Value, gradient: Value) -> Value:
    """Add a micro-batch's gradient to those of the step so far, which lie in the arena from one execution to the next;
    returns their sum."""
    total = Value(optimizer_state_name("gradient_sum", parameter.name), parameter.shape, "gradient_sum")
    builder.graph.state.append(total)
    builder.graph.emit("add", (total, gradient, False), (updated(total),))
    return total


def emit_waiting_updates(builder: StepBuilder, gradients: list[tuple[Value, Value]]) -> None:
    """All updates, once every (parameter, gradient) pair's gradient is complete.

    Every gradient lives until then: this costs the bytes of all gradients, where else one lives at a time. Where they
    are sums over micro-batches, only the last execution of a step goes on from here, and leaves the sums at zero.
    """
    if builder.sums_apart:
        last = Value("is_last", (), "temporary", "bool")
        hyperparameters = builder.tensors[HYPERPARAMETERS_INPUT]
        builder.graph.emit("is_set", (hyperparameters, hyperparameters.shape[0] - 1), (last,))
        builder.graph.emit(END_UNLESS, (last,), ())
    factor = None
    if builder.optimizer.clip_norm > 0:
        factor = builder.new("clip_factor", ())
        builder.graph.emit("clip_factor", (builder.optimizer.clip_norm, *(g for _, g in gradients)), (factor,))
    for parameter, gradient in gradients:
        complete = gradient
        if factor is not None:
            complete = updated(gradient) if builder.sums_apart else builder.gradient_of(parameter)
            builder.graph.emit("scale_by", (gradient, factor), (complete,))
        emit_update(builder, parameter, complete)
        if builder.sums_apart:
            builder.graph.emit("fill", (0.0,), (updated(gradient),))


def emit_fused_update(builder: StepBuilder, operator: str, arguments: tuple[Argument, ...], parameter: Value) -> None:
    """A gradient and the update with it in one operation, so that the gradient never exists as a whole.

    `operator` is a kernel that computes a weight's gradient from `arguments`; there is one `<operator>_sgd` for each.
    """
    momentum = _momentum(builder, parameter)
    builder.graph.emit(
        f"{operator}_sgd",
        (*arguments, parameter, builder.tensors[HYPERPARAMETERS_INPUT], momentum, *_start(builder, parameter)),
        (updated(parameter), None if momentum is None else updated(momentum)),
    )


def _start(builder: StepBuilder, parameter: Value) -> tuple[Value, ...]:
    """The parameter as it was when the training started, where a proximal term pulls it back there."""
    return (builder.tensor(parameter.name, "frozen"),) if builder.optimizer.proximal else ()


def _momentum(builder: StepBuilder, parameter: Value) -> Value | None:
    """The momentum of a parameter. Micro-batches may be accumulated in it, and then need one in any case."""
    optimizer = builder.optimizer
    if optimizer.momentum == 0 and (builder.micro_batches == 1 or builder.sums_apart):
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
