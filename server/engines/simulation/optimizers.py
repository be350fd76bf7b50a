"""The clients' optimizers in PyTorch, for one client's tensors or for those of many stacked: as torch.optim, and as the
light runtime's kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from device_profiles.manifest import Optimizer
from device_profiles.optimizers import OptimizerName
from edge_runtime.device.worker.bias_correction import bias_corrections


class Updates(Protocol):
    """The updates of one training."""

    def update(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """One step in place; the gradients are not needed afterwards."""


@dataclass(frozen=True, slots=True)
class LocalStep:
    """An optimizer with what differs between tasks: learning rate, and FedProx's mu (Li et al., MLSys 2020)."""

    optimizer: Optimizer
    learning_rate: float
    proximal: float = 0.0

    @property
    def clip_norm(self) -> float:
        """The largest norm of all gradients of a client together, 0 for any."""
        return self.optimizer.clip_norm

    def start(self, parameters: list[Tensor]) -> Updates:
        """Updates of a training that starts from `parameters`, which stay as they are."""
        return _UPDATES[self.optimizer.name](self, parameters if self.proximal else [])


class _Sgd:
    """SGD with momentum, as torch.optim.SGD; the momenta are the gradients themselves after the first step."""

    def __init__(self, step: LocalStep, anchors: list[Tensor]) -> None:
        self._step = step
        self._anchors = anchors
        self._momenta: list[Tensor] = []

    def update(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """One step; `gradients` become the momenta of the first one."""
        optimizer = self._step.optimizer
        if self._anchors:
            distances = [parameter - anchor for parameter, anchor in zip(parameters, self._anchors, strict=True)]
            torch._foreach_add_(gradients, distances, alpha=self._step.proximal)
        torch._foreach_add_(gradients, parameters, alpha=optimizer.weight_decay)
        torch._foreach_add_(parameters, self._with_momentum(gradients), alpha=-self._step.learning_rate)

    def _with_momentum(self, gradients: list[Tensor]) -> list[Tensor]:
        optimizer = self._step.optimizer
        if self._momenta:
            torch._foreach_mul_(self._momenta, optimizer.momentum)
            torch._foreach_add_(self._momenta, gradients)
        else:
            self._momenta = [gradient.clone() for gradient in gradients] if optimizer.nesterov else gradients
        moves = self._momenta
        if optimizer.nesterov:
            torch._foreach_add_(gradients, self._momenta, alpha=optimizer.momentum)
            moves = gradients
        if optimizer.momentum_dtype == "bfloat16":
            # Computed with in float32, kept in half of that.
            self._momenta = [momentum.bfloat16().float() for momentum in self._momenta]
        return moves


class _AdamW:
    """As torch.optim.AdamW."""

    def __init__(self, step: LocalStep, anchors: list[Tensor]) -> None:
        assert not anchors  # the proximal term is a part of SGD's own step
        self._step = step
        self._first: list[Tensor] = []
        self._second: list[Tensor] = []
        self._count = 0

    def update(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """One step, with the corrections of how many there were."""
        optimizer, rate = self._step.optimizer, self._step.learning_rate
        if not self._first:
            self._first = [torch.zeros_like(gradient) for gradient in gradients]
            self._second = [torch.zeros_like(gradient) for gradient in gradients]
        correction, root_correction = bias_corrections(optimizer.beta1, optimizer.beta2, self._count)
        self._count += 1
        torch._foreach_mul_(parameters, 1 - rate * optimizer.weight_decay)
        torch._foreach_mul_(self._first, optimizer.beta1)
        torch._foreach_add_(self._first, gradients, alpha=1 - optimizer.beta1)
        torch._foreach_mul_(self._second, optimizer.beta2)
        torch._foreach_addcmul_(self._second, gradients, gradients, value=1 - optimizer.beta2)
        roots = torch._foreach_sqrt(self._second)
        torch._foreach_mul_(roots, root_correction)
        torch._foreach_add_(roots, optimizer.eps)
        torch._foreach_addcdiv_(parameters, self._first, roots, value=-rate * correction)


_UPDATES: dict[OptimizerName, Callable[[LocalStep, list[Tensor]], Updates]] = {"sgd": _Sgd, "adamw": _AdamW}
