"""What of an optimizer the device fills in for every execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_profiles.manifest import Optimizer
from device_profiles.optimizers import OptimizerName
from edge_runtime.device.worker.bias_correction import bias_corrections


def hyperparameters(
    optimizer: Optimizer,
    learning_rate: float,
    position: int,
    micro_batches: int,
    step: int,
    proximal_mu: float = 0.0,
) -> list[float]:
    """The program's hyperparameters for execution `position` (0-based) of the `micro_batches` of `step` (0-based).

    SGD: [learning rate, momentum, weight decay, Nesterov], and with a proximal term (Li et al., MLSys 2020) its factor
    mu. The gradients of micro-batches are summed in the momentum, which the first of them decays; the last one moves
    the parameters. The sum is that of one large batch:
    v' = momentum v + weight_decay p + mu (p - p_start) + g_1 + ... + g_M, p' = p - learning_rate v'.

    AdamW: [learning rate, 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t), weight decay] with t = `step` + 1.

    Where the sum cannot be made in the momentum, one more says whether this execution updates, as the last one does.
    """
    first, last = position == 0, position == micro_batches - 1
    apart = micro_batches > 1 and not optimizer.sums_in_momentum
    # What is summed apart is one large batch to its only update.
    filled = Filled(learning_rate, proximal_mu, step, first=first or apart, last=last or apart)
    return [*_OF[optimizer.name](optimizer, filled), *([1.0 if last else 0.0] if apart else [])]


@dataclass(frozen=True, slots=True)
class Filled:
    """What an execution's hyperparameters follow from; `first` and `last` among those that share a sum."""

    learning_rate: float
    proximal_mu: float
    step: int
    first: bool
    last: bool


def _sgd(optimizer: Optimizer, filled: Filled) -> list[float]:
    values = [
        filled.learning_rate if filled.last else 0.0,
        optimizer.momentum if filled.first else 1.0,
        optimizer.weight_decay if filled.first else 0.0,
        1.0 if optimizer.nesterov else 0.0,
    ]
    return [*values, filled.proximal_mu if filled.first else 0.0] if optimizer.proximal else values


def _adamw(optimizer: Optimizer, filled: Filled) -> list[float]:
    corrections = bias_corrections(optimizer.beta1, optimizer.beta2, filled.step)
    return [filled.learning_rate, *corrections, optimizer.weight_decay]


_OF: dict[OptimizerName, Callable[[Optimizer, Filled], list[float]]] = {"sgd": _sgd, "adamw": _adamw}
