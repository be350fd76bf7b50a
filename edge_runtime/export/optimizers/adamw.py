"""AdamW (Loshchilov and Hutter, ICLR 2019), as torch.optim.AdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_profiles.contract import HYPERPARAMETERS_INPUT
from edge_runtime.export.ir.graph import Value, updated
from edge_runtime.export.optimizers.optimizer import UpdateRule, optimizer_state

if TYPE_CHECKING:
    from edge_runtime.export.ir.builder import StepBuilder


class AdamW(UpdateRule):
    """Two moments a parameter; the gradients of micro-batches have sums of their own."""

    def update(self, builder: StepBuilder, parameter: Value, gradient: Value) -> None:
        """Moments, their corrections for the start at zero (given by the device), decay apart from the gradient."""
        first, second = (optimizer_state(builder, slot, parameter) for slot in ("first_moment", "second_moment"))
        hyperparameters = builder.tensors[HYPERPARAMETERS_INPUT]
        constants = (self.settings.beta1, self.settings.beta2, self.settings.eps)
        builder.graph.emit(
            "adamw",
            (parameter, gradient, hyperparameters, first, second, *constants),
            (updated(parameter), updated(first), updated(second)),
        )
