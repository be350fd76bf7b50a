"""FedPLT: parts of every layer are trained, the rest stays as it is, and each value is averaged over its trainers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from device_profiles.work import Sublayers, Whole, parse_work
from server.engines.simulation.networks import rows_of
from server.engines.simulation.optimizers import LocalStep
from server.engines.simulation.trainable import Terms
from server.engines.simulation.trainables import TrainableSet
from server.engines.simulation.training import Trained, train_alone, train_stacked
from server.fleet.fleet import TrainingSettings
from server.fleet.local_optimizer import local_optimizer
from server.fleet.model import ModelSettings
from server.methods.sublayers import SUBLAYERS

MODEL = TrainableSet(ModelSettings(name="cnn", width=4, batch=4, input_shape=(3, 16, 16)))
STEP = LocalStep(local_optimizer(TrainingSettings()), learning_rate=0.05, proximal=0.0)


class _Data:
    steps = 3

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._x = torch.randn(3, 4, 3, 16, 16, generator=generator)
        self._labels = torch.randint(10, (3, 4), generator=generator)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._x[step], self._labels[step]


def _train(share: float, first: float, seed: int = 0) -> Trained:
    weights = MODEL.pieces.initial_weights()
    terms = Terms(first_row=torch.tensor(first)) if share < 1 else Terms()
    return train_alone(MODEL.of(Sublayers(ratio=share)), weights, weights, _Data(seed), STEP, terms)


@pytest.mark.parametrize("count", [1, 5, 8, 10, 64, 100])
@pytest.mark.parametrize("part", [1, 3, 8])
def test_sublayers_are_of_equal_size_and_together_they_are_the_layer(count: int, part: int) -> None:
    share = part / SUBLAYERS
    rows = [rows_of(count, torch.tensor(first / SUBLAYERS), share).numpy() for first in range(SUBLAYERS)]
    assert (np.sum(rows, axis=0) == part).all()  # every row is trained by as many of eight clients
    assert max(np.sum(rows, axis=1)) - min(np.sum(rows, axis=1)) <= 1


def test_rows_that_are_not_trained_do_not_change_the_answer_and_are_not_sent_as_trained() -> None:
    weights = MODEL.pieces.initial_weights()
    work = MODEL.of(Sublayers(ratio=0.25))
    trained = _train(0.25, 0.5)
    moved = {}
    for name, tensor in work.trained.items():
        if tensor.role == "parameter":
            rows = rows_of(tensor.shape[0], torch.tensor(0.5), 0.25)
            moved[name] = not torch.equal(trained.tensors[name][rows], weights[name][rows])
    assert all(moved[name] for name in moved if name.endswith("weight") and "bn" not in name)
    # Whatever lies in the frozen rows: the loss reads the start's.
    other = {**weights, **trained.tensors}
    x, labels = _Data(1).batch(0)
    terms = Terms(first_row=torch.tensor(0.5))
    noise = {
        name: torch.where(
            rows_of(tensor.shape[0], torch.tensor(0.5), 0.25).reshape(-1, *(1,) * (len(tensor.shape) - 1)),
            other[name],
            torch.randn(tensor.shape),
        )
        if tensor.role == "parameter"
        else other[name].clone()
        for name, tensor in work.trained.items()
    }
    ours = {name: other[name].clone() for name in work.trained}
    assert torch.equal(work.loss(ours, weights, x, labels, terms), work.loss(noise, weights, x, labels, terms))


def test_all_sublayers_are_the_whole_network() -> None:
    weights = MODEL.pieces.initial_weights()
    whole = train_alone(MODEL.of(Whole()), weights, weights, _Data(0), STEP, Terms())
    every = _train(1.0, 0.0)
    assert whole.loss_last == every.loss_last
    assert all(torch.equal(whole.tensors[name], every.tensors[name]) for name in whole.tensors)


def test_stacked_clients_train_what_each_would_alone() -> None:
    weights = MODEL.pieces.initial_weights()
    firsts = [0.0, 0.375]
    terms = [Terms(first_row=torch.tensor(first)) for first in firsts]
    stacked = train_stacked(MODEL.of(Sublayers(ratio=0.5)), weights, weights, [_Data(0), _Data(1)], STEP, terms)
    for seed, (first, own) in enumerate(zip(firsts, stacked, strict=True)):
        alone = _train(0.5, first, seed)
        for name, tensor in own.tensors.items():
            torch.testing.assert_close(tensor, alone.tensors[name], rtol=1e-3, atol=1e-4)


def test_its_name_is_read_back() -> None:
    assert parse_work("sublayers-0.125") == Sublayers(ratio=0.125)
