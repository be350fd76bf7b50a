"""AdamW: two moments a parameter, whose corrections for the bias of a start at zero the device fills in."""

from __future__ import annotations

from typing import Any

from device_profiles.contract import HYPERPARAMETERS_INPUT
from edge_runtime.export.ir.graph import Value
from edge_runtime.export.ir.optimizer import UnfinishedStep
from edge_runtime.export.optimizers.optimizer import ProgramOptimizer, optimizer_state


class AdamW(ProgramOptimizer):
    """Its update reads every element of a gradient once, but needs it whole: no update is fused."""

    torch_name = "AdamW"

    def emit_update(self, step: UnfinishedStep, parameter: Value, gradient: Value) -> None:
        """One `adamw` over the whole parameter."""
        settings = self.settings
        first, second = (optimizer_state(step, slot, parameter) for slot in ("first_moment", "second_moment"))
        constants = (settings.beta1, settings.beta2, settings.eps)
        step.graph.emit(
            "adamw",
            (parameter, gradient, step.tensors[HYPERPARAMETERS_INPUT], first, second, *constants),
            (parameter.updated(), first.updated(), second.updated()),
        )

    def torch_options(self) -> dict[str, Any]:
        """Decay of the moments, the divisor's floor and weight decay."""
        settings = self.settings
        return {
            "weight_decay": settings.weight_decay,
            "betas": (settings.beta1, settings.beta2),
            "eps": settings.eps,
        }
