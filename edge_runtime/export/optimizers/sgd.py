"""SGD with momentum, as torch.optim.SGD, and FedProx's proximal term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_profiles.contract import HYPERPARAMETERS_INPUT
from device_profiles.optimizer import Optimizer
from edge_runtime.export.ir.graph import Argument, Value, updated
from edge_runtime.export.optimizers.optimizer import UpdateRule, optimizer_state

if TYPE_CHECKING:
    from edge_runtime.export.ir.builder import StepBuilder


class SGD(UpdateRule):
    """Micro-batches may be summed in the momentum, which costs no memory; gradients go straight into updates."""

    def __init__(self, settings: Optimizer, micro_batches: int) -> None:
        super().__init__(settings, micro_batches)
        self.fuses = not self.waits

    def update(self, builder: StepBuilder, parameter: Value, gradient: Value) -> None:
        """v' = momentum v + g + weight_decay p (+ mu (p - p_start)), p' = p - learning_rate v'."""
        momentum = self._momentum(builder, parameter)
        hyperparameters = builder.tensors[HYPERPARAMETERS_INPUT]
        builder.graph.emit(
            "sgd",
            (parameter, gradient, hyperparameters, momentum, *self._start(builder, parameter)),
            _outputs(parameter, momentum),
        )

    def fused_update(
        self, builder: StepBuilder, operator: str, arguments: tuple[Argument, ...], parameter: Value
    ) -> None:
        """A gradient and the update with it in one operation, so that the gradient never exists as a whole.

        `operator` is a kernel that computes a weight's gradient from `arguments`; there is one `<operator>_sgd` for
        each.
        """
        momentum = self._momentum(builder, parameter)
        hyperparameters = builder.tensors[HYPERPARAMETERS_INPUT]
        builder.graph.emit(
            f"{operator}_sgd",
            (*arguments, parameter, hyperparameters, momentum, *self._start(builder, parameter)),
            _outputs(parameter, momentum),
        )

    def _start(self, builder: StepBuilder, parameter: Value) -> tuple[Value, ...]:
        """The parameter as it was when the training started, where a proximal term pulls it back there."""
        return (builder.tensor(parameter.name, "frozen"),) if self.settings.proximal else ()

    def _momentum(self, builder: StepBuilder, parameter: Value) -> Value | None:
        """The momentum of a parameter. Micro-batches may be accumulated in it, and then need one in any case."""
        if self.settings.momentum == 0 and (self.micro_batches == 1 or self.sums_apart):
            return None
        return optimizer_state(builder, "momentum", parameter, self.settings.momentum_dtype)


def _outputs(parameter: Value, momentum: Value | None) -> tuple[Value | None, ...]:
    return updated(parameter), None if momentum is None else updated(momentum)
