"""What all optimizers share: sums over micro-batches, clipping, updates that wait, and the settings they take."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from device_profiles.contract import HYPERPARAMETERS_INPUT, DType, optimizer_state_name
from device_profiles.errors import UsageError
from device_profiles.manifest import Optimizer, hyperparameter_count
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.settings import Setting
from edge_runtime.export.ir.graph import END_UNLESS, Argument, Pairs, Value
from edge_runtime.export.ir.optimizer import UnfinishedStep


class ProgramOptimizer(ABC):
    """The optimizer of one program, whose step is `micro_batches` executions. A child says what one update computes.

    `has_momentum` and `has_proximal_term` say which settings it takes. `torch_name` is PyTorch's class that it follows.
    """

    has_momentum: ClassVar[bool] = False
    has_proximal_term: ClassVar[bool] = False
    torch_name: ClassVar[str]

    def __init__(self, settings: Optimizer, micro_batches: int = 1) -> None:
        self.settings = settings
        self.micro_batches = micro_batches

    @abstractmethod
    def emit_update(self, step: UnfinishedStep, parameter: Value, gradient: Value) -> None:
        """Update `parameter` in place, as PyTorch's optimizer does."""

    def emit_fused_update(
        self, step: UnfinishedStep, operator: str, arguments: tuple[Argument, ...], parameter: Value
    ) -> None:
        """A gradient and the update with it in one operation, so that the gradient never exists as a whole.

        `operator` is a kernel that computes a weight's gradient from `arguments`.
        """
        raise NotImplementedError(f"{self.settings.name} has no fused update, and does not say that it fuses any")

    @abstractmethod
    def torch_options(self) -> dict[str, Any]:
        """The arguments of PyTorch's class, beside parameters and learning rate."""

    @property
    def hyperparameters(self) -> int:
        """Numbers that the device fills in for every execution."""
        return hyperparameter_count(self.settings) + self.sums_apart

    @property
    def sums_apart(self) -> bool:
        """Whether every gradient is summed over the micro-batches of a step, and updates are made in the last one."""
        return self.micro_batches > 1 and not self.settings.sums_in_momentum

    @property
    def waits(self) -> bool:
        """Whether updates wait for all gradients, to be clipped, or for all micro-batches."""
        return self.sums_apart or self.settings.clip_norm > 0

    @property
    def fuses_update(self) -> bool:
        """Whether there is an `emit_fused_update` that may be used."""
        return False

    def check(self) -> None:
        """Raise UsageError, naming the option, for settings that cannot be trained with."""
        settings, title = self.settings, OPTIMIZERS[self.settings.name].title
        for name in ("momentum", "weight_decay", "eps", "clip_norm"):
            value = getattr(settings, name)
            if not 0 <= value < math.inf:
                raise UsageError("must be a finite number of at least 0", field=name, value=value)
        if settings.momentum >= 1:
            raise UsageError("must lie in [0, 1)", field="momentum", value=settings.momentum)
        if settings.nesterov and not self.has_momentum:
            raise UsageError(
                (Setting("nesterov"), " requires ", Setting("optimizer", "sgd")), remedy="leave one of the two out"
            )
        if settings.nesterov and settings.momentum <= 0:
            raise UsageError((Setting("nesterov"), " requires ", Setting("momentum"), " above 0"))
        if not (0 <= settings.beta1 < 1 and 0 <= settings.beta2 < 1):
            raise UsageError("must lie in [0, 1)", field="betas", value=f"{settings.beta1},{settings.beta2}")
        if settings.momentum_dtype != "float32" and not self.has_momentum:
            raise UsageError(
                (Setting("momentum_dtype", settings.momentum_dtype), " requires ", Setting("optimizer", "sgd")),
                remedy=f"{title} keeps float32",
            )
        for present, other in (
            (not self.has_proximal_term, Setting("optimizer", settings.name)),
            (settings.clip_norm > 0, Setting("clip_norm")),
        ):
            if settings.proximal and present:
                raise UsageError(
                    (Setting("proximal"), " cannot be combined with ", other, ": it is a part of SGD's own step"),
                    remedy="leave one of the two out",
                )

    def add_to_sum(self, step: UnfinishedStep, parameter: Value, gradient: Value) -> Value:
        """Add a micro-batch's gradient to those of the step so far, which lie in the arena from one execution to the
        next; returns their sum."""
        total = Value(optimizer_state_name("gradient_sum", parameter.name), parameter.shape, "gradient_sum")
        step.graph.state.append(total)
        step.graph.emit("add", (total, gradient, False), (total.updated(),))
        return total

    def emit_waiting_updates(self, step: UnfinishedStep, gradients: Pairs) -> None:
        """All updates, once every (parameter, gradient) pair's gradient is complete.

        Every gradient lives until then: this costs the bytes of all gradients, where else one lives at a time. Where
        they are sums over micro-batches, only the last execution of a step goes on from here, and leaves the sums at
        zero.
        """
        graph = step.graph
        if self.sums_apart:
            last = Value("is_last", (), "temporary", "bool")
            hyperparameters = step.tensors[HYPERPARAMETERS_INPUT]
            graph.emit("is_set", (hyperparameters, self.hyperparameters - 1), (last,))
            graph.emit(END_UNLESS, (last,), ())
        factor = None
        if self.settings.clip_norm > 0:
            factor = step.new("clip_factor", ())
            graph.emit("clip_factor", (self.settings.clip_norm, *(g for _, g in gradients)), (factor,))
        for parameter, gradient in gradients:
            complete = gradient
            if factor is not None:
                complete = gradient.updated() if self.sums_apart else step.gradient_of(parameter)
                graph.emit("scale_by", (gradient, factor), (complete,))
            self.emit_update(step, parameter, complete)
            if self.sums_apart:
                graph.emit("fill", (0.0,), (gradient.updated(),))


def optimizer_state(step: UnfinishedStep, slot: str, parameter: Value, dtype: DType = "float32") -> Value:
    """A mutable buffer of the parameter's shape that starts at zero."""
    state = Value(optimizer_state_name(slot, parameter.name), parameter.shape, "optimizer_state", dtype)
    step.graph.state.append(state)
    return state
