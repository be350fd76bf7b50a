"""Server optimizers, a module each: how the clients' average becomes the next weights."""

from __future__ import annotations

from collections.abc import Callable

from server.averaging.optimizers.adaptive import Adaptive
from server.averaging.optimizers.fedadam import FedAdam
from server.averaging.optimizers.fedavg import FedAvg
from server.averaging.optimizers.fedyogi import FedYogi
from server.averaging.optimizers.optimizer import ServerOptimizer
from server.fleet.fleet import TrainingSettings

_ADAPTIVE_RATE = 0.01
"""Where none is asked for."""


def _adaptive(kind: type[Adaptive]) -> Callable[[TrainingSettings], ServerOptimizer]:
    return lambda settings: kind(
        learning_rate=settings.server_learning_rate or _ADAPTIVE_RATE,
        beta1=settings.server_beta1,
        beta2=settings.server_beta2,
        tau=settings.server_tau,
    )


OPTIMIZERS: dict[str, Callable[[TrainingSettings], ServerOptimizer]] = {
    "fedavg": lambda settings: FedAvg(settings.server_learning_rate or 1.0),
    "fedadam": _adaptive(FedAdam),
    "fedyogi": _adaptive(FedYogi),
}


def create_optimizer(settings: TrainingSettings) -> ServerOptimizer:
    """The server optimizer that a fleet file names."""
    return OPTIMIZERS[settings.server_optimizer](settings)
