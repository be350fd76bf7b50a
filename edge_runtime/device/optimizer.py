"""What of an optimizer the device fills in for every execution."""

from __future__ import annotations

from device_profiles.bundle import Optimizer


def hyperparameters(optimizer: Optimizer, learning_rate: float, position: int, micro_batches: int) -> list[float]:
    """The program's hyperparameters for execution `position` (0-based) of the `micro_batches` of a step.

    SGD: [learning rate, momentum, weight decay]. The gradients of micro-batches are summed in the momentum, which the
    first of them decays; the last one moves the parameters. The sum is that of one large batch:
    v' = momentum v + weight_decay p + g_1 + ... + g_M, p' = p - learning_rate v'.
    """
    first, last = position == 0, position == micro_batches - 1
    return [
        learning_rate if last else 0.0,
        optimizer.momentum if first else 1.0,
        optimizer.weight_decay if first else 0.0,
    ]
