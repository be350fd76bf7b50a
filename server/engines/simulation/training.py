"""Local training of virtual clients: one after the other, or many at once with stacked tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from server.engines.simulation.optimizers import LocalStep
from server.engines.simulation.trainable import Terms, Trainable


class LocalData(Protocol):
    """What one client trains on: inputs and labels of every step, [steps, batch, ...], made when they are asked for."""

    @property
    def steps(self) -> int:
        """How many there are."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs of the trained part and labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A client's tensors after its steps, and its losses."""

    tensors: dict[str, Tensor]
    loss_first: float
    loss_last: float


def train_alone(
    trainable: Trainable,
    start: dict[str, Tensor],
    frozen: dict[str, Tensor],
    data: LocalData,
    step: LocalStep,
    terms: Terms,
) -> Trained:
    """Train one client from `start`, which stays as it is."""
    state = {name: _copy(start[name]) for name in trainable.trained}
    names = [name for name, tensor in trainable.trained.items() if tensor.role == "parameter"]
    parameters = [state[name].requires_grad_() for name in names]
    optimizer = step.start([start[name] for name in names])
    losses = []
    for number in range(data.steps):
        x, labels = data.batch(number)
        loss = trainable.loss(state, frozen, x, labels, terms)
        gradients = list(torch.autograd.grad(loss, parameters))
        losses.append(loss.detach())
        with torch.no_grad():
            if step.clip_norm > 0:
                _clip(gradients, torch.stack(torch._foreach_norm(gradients)).norm(), step.clip_norm)
            optimizer.update(parameters, gradients)
    return Trained(
        tensors={name: tensor.detach() for name, tensor in state.items()},
        loss_first=float(losses[0]),
        loss_last=float(losses[-1]),
    )


def train_stacked(
    trainable: Trainable,
    start: dict[str, Tensor],
    frozen: dict[str, Tensor],
    data: Sequence[LocalData],
    step: LocalStep,
    terms: Sequence[Terms],
) -> list[Trained]:
    """The same for clients that take equally many steps, as one: every tensor has a first axis of clients.

    On a GPU one kernel then serves all of them, where a client's own would leave it idle.
    """
    count = len(data)
    state = {name: start[name].expand(count, *start[name].shape).clone() for name in trainable.trained}
    names = [name for name, tensor in trainable.trained.items() if tensor.role == "parameter"]
    statistics = {name: tensor for name, tensor in state.items() if name not in set(names)}
    optimizer = step.start([start[name] for name in names])
    masks = [own.classes for own in terms if own.classes is not None]
    masked = len(masks) == count
    classes = torch.stack(masks) if masked else torch.zeros(count, 1)
    firsts = [own.first_row for own in terms if own.first_row is not None]
    sliced = len(firsts) == count
    first_rows = torch.stack(firsts) if sliced else torch.zeros(count)

    def loss_of(
        own: dict[str, Tensor],
        own_statistics: dict[str, Tensor],
        x: Tensor,
        labels: Tensor,
        mask: Tensor,
        first_row: Tensor,
    ) -> Tensor:
        own_terms = Terms(
            classes=mask if masked else None,
            consistency=terms[0].consistency,
            first_row=first_row if sliced else None,
        )
        return trainable.loss({**own, **own_statistics}, frozen, x, labels, own_terms)

    derivative = torch.func.vmap(torch.func.grad_and_value(loss_of), randomness="different")
    first = last = torch.zeros(count)
    for number in range(data[0].steps):
        batches = [own.batch(number) for own in data]
        x, labels = (torch.stack(part) for part in zip(*batches, strict=True))
        gradients, losses = derivative(
            {name: state[name] for name in names}, statistics, x, labels, classes, first_rows
        )
        with torch.no_grad():
            own = [gradients[name] for name in names]
            if step.clip_norm > 0:
                _clip(own, torch.stack([g.flatten(1).norm(dim=1) for g in own]).norm(dim=0), step.clip_norm)
            optimizer.update([state[name] for name in names], own)
        first = losses if number == 0 else first
        last = losses
    return [
        Trained(
            tensors={name: tensor[position] for name, tensor in state.items()},
            loss_first=float(first[position]),
            loss_last=float(last[position]),
        )
        for position in range(count)
    ]


def _clip(gradients: list[Tensor], norm: Tensor, largest: float) -> None:
    """Scale gradients in place as torch.nn.utils.clip_grad_norm_ does; `norm` is a number, or [clients]."""
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.reshape(-1, *(1,) * (gradient.ndim - 1)) if factor.ndim else factor)


def _copy(tensor: Tensor) -> Tensor:
    """A copy; images' weights with the channels last, which is what convolutions on a CPU are fastest with."""
    if tensor.ndim == 4 and tensor.device.type == "cpu":
        return tensor.clone(memory_format=torch.channels_last)
    return tensor.clone()
