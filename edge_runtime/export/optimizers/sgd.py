"""SGD with momentum, Nesterov's momentum, weight decay and FedProx's proximal term."""

from __future__ import annotations

from typing import Any

from device_profiles.contract import HYPERPARAMETERS_INPUT
from edge_runtime.export.ir.graph import Argument, Value
from edge_runtime.export.ir.optimizer import UnfinishedStep
from edge_runtime.export.optimizers.optimizer import ProgramOptimizer, optimizer_state


class Sgd(ProgramOptimizer):
    """Gradients of micro-batches are summed in the momentum where that gives what one large batch would."""

    has_momentum = True
    has_proximal_term = True
    torch_name = "SGD"

    def emit_update(self, step: UnfinishedStep, parameter: Value, gradient: Value) -> None:
        """One `sgd` over the whole parameter."""
        self._emit(step, "sgd", (parameter, gradient), parameter)

    def emit_fused_update(
        self, step: UnfinishedStep, operator: str, arguments: tuple[Argument, ...], parameter: Value
    ) -> None:
        """There is one `<operator>_sgd` for each kernel that computes a weight's gradient."""
        self._emit(step, f"{operator}_sgd", (*arguments, parameter), parameter)

    def _emit(self, step: UnfinishedStep, operator: str, arguments: tuple[Argument, ...], parameter: Value) -> None:
        momentum = self._momentum(step, parameter)
        start = (step.tensor(parameter.name, "frozen"),) if self.settings.proximal else ()
        step.graph.emit(
            operator,
            (*arguments, step.tensors[HYPERPARAMETERS_INPUT], momentum, *start),
            (parameter.updated(), None if momentum is None else momentum.updated()),
        )

    def _momentum(self, step: UnfinishedStep, parameter: Value) -> Value | None:
        """The momentum of a parameter. Micro-batches may be accumulated in it, and then need one in any case."""
        if self.settings.momentum == 0 and (self.micro_batches == 1 or self.sums_apart):
            return None
        return optimizer_state(step, "momentum", parameter, self.settings.momentum_dtype)

    @property
    def fuses_update(self) -> bool:
        """Unless the gradient must exist, to be clipped or summed."""
        return not self.waits

    def torch_options(self) -> dict[str, Any]:
        """Momentum and weight decay."""
        options = {"weight_decay": self.settings.weight_decay, "momentum": self.settings.momentum}
        return options | ({"nesterov": True} if self.settings.nesterov else {})
