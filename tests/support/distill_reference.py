"""PyTorch eager as the reference for distillations: teacher without gradients, student by autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.contract import stand_in_name
from device_profiles.model import Partition
from edge_runtime.export.cut.units import CutModel
from tests.support.graph_reference import add_proximal, stand_in


class Runner(Protocol):
    """Runs parts of one module eagerly: `GraphRunner`, or `DroppingRunner` for token models."""

    input: str

    def run(self, start: str, end: str | None, value: Tensor, *, training: bool) -> Tensor: ...


class DistillReference:
    """Distils block `index` (1-based) of `module` into its stand-in, from `weights` by a bundle's names.

    `runner` makes what runs a module. `proximal_mu` pulls every trained parameter back to where it started, as FedProx
    adds it to the gradient.
    """

    def __init__(
        self,
        module: nn.Module,
        runner: Callable[[nn.Module], Runner],
        cut: CutModel,
        partition: Partition,
        index: int,
        weights: dict[str, Tensor],
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        proximal_mu: float = 0.0,
    ) -> None:
        self.module = copy.deepcopy(module)
        self.module.load_state_dict({name: weights[name] for name in module.state_dict()})
        teacher = copy.deepcopy(self.module).requires_grad_(False)
        self.teacher, self.student = runner(teacher), runner(self.module)
        block = partition.blocks[index - 1]
        self.start, self.end = cut.units[block.first_unit].input, cut.units[block.last_unit].output
        self.head = cut.head.input
        self.last = index == len(partition.blocks)
        self.name = stand_in_name(index)
        self.weight = nn.Parameter(weights[self.name].clone())
        self.shape = cut.shapes[self.end]
        self.behind = [
            (weights[stand_in_name(b.index)].clone(), cut.shapes[cut.units[b.last_unit].output])
            for b in partition.blocks[index:]
        ]
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(self.last and name in cut.head.tensors)
        self.trained = [self.weight, *(p for p in self.module.parameters() if p.requires_grad)]
        self.started = [parameter.detach().clone() for parameter in self.trained]
        self.proximal_mu = proximal_mu
        self.optimizer = torch.optim.SGD(self.trained, lr=0.05, momentum=momentum, weight_decay=weight_decay)

    def step(self, inputs: Tensor, rate: float) -> float:
        """One step; returns the loss before the update."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            features = self.teacher.run(self.teacher.input, self.start, inputs.clone(), training=False)
            block = self.teacher.run(self.start, self.end, features.clone(), training=False)
            wanted = self._behind(self.teacher, block, training=False)
        logits = self._behind(self.student, _stand_in(features, self.weight, self.shape), training=self.last)
        loss = functional.mse_loss(logits, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        add_proximal(self.trained, self.started, self.proximal_mu)
        self.optimizer.step()
        return float(loss.detach())

    def _behind(self, runner: Runner, x: Tensor, *, training: bool) -> Tensor:
        for weight, shape in self.behind:
            x = _stand_in(x, weight, shape)
        return runner.run(self.head, None, x, training=training)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the bundle's names."""
        return {**self.module.state_dict(), self.name: self.weight.detach()}


def _stand_in(x: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    tokens = x.dim() == 3 and weight.dim() == 2 and len(shape) == 3
    return functional.linear(x, weight) if tokens else stand_in(x, weight, shape)
