"""One client of ten sends what no training gives; the model is as good as without it. Real trainings of a small network
with BatchNorm; updates are judged and averaged as in a run."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from device_profiles.update import UpdateMetadata
from device_profiles.work import Whole
from server.averaging.aggregation import ReceivedUpdate, average
from server.fleet.structure import Structure, TrainedTensor
from server.judging.judging import Asked, judge
from tests.support.partitions import blocks_of_one_unit

CLIENTS = tuple(f"c{number}" for number in range(10))
ATTACKER = "c3"
WORK = Whole()
ROUNDS, STEPS, BATCH, CLASSES, FEATURES = 12, 10, 32, 10, 32
Tensors = dict[str, np.ndarray]
Attack = Callable[[Tensors, Tensors], Tensors]


def _of(fragment: str, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Attack:
    """Change what has `fragment` in its name, from what it was and what it started from."""

    def attack(own: Tensors, base: Tensors) -> Tensors:
        chosen = [name for name in own if fragment in name]
        return own | {name: np.float32(change(own[name], base[name])) for name in chosen}

    return attack


def _moved(factor: float, only: str = "") -> Attack:
    def attack(own: Tensors, base: Tensors) -> Tensors:
        chosen = [name for name in own if "running" not in name and only in name]
        return own | {name: base[name] + np.float32(factor) * (own[name] - base[name]) for name in chosen}

    return attack


ATTACKS: dict[str, Attack] = {
    "variances of 9e5": _of("running_var", lambda own, base: np.full_like(own, 9e5)),
    "variances times 50": _of("running_var", lambda own, base: own * 50),
    "variances within the bound": _of("running_var", lambda own, base: own * 9),
    "variances of zero": _of("running_var", lambda own, base: own * 0),
    "one variance of 9e5": _of("running_var", lambda own, base: np.where(np.arange(len(own)) == 0, 9e5, own)),
    "means of 1e4": _of("running_mean", lambda own, base: np.full_like(own, 1e4)),
    "means within the bound": _of("running_mean", lambda own, base: own + 2),
    "-9 times its move": _moved(-9.0),
    "9 times its move": _moved(9.0),
    "-3 times its move": _moved(-3.0),
    "-1 times its move": _moved(-1.0),
    "-9 times one tensor's move": _moved(-9.0, "0.weight"),
    "zeros": _of("", lambda own, base: own * 0),
}


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(2):
        layers += [torch.nn.Linear(FEATURES, FEATURES), torch.nn.BatchNorm1d(FEATURES), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(FEATURES, CLASSES))


def _data() -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], torch.Tensor, torch.Tensor]:
    """Classes in unlike shares at each client, Dirichlet 1; and test examples."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, FEATURES))

    def examples(labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = centres[labels] + 1.3 * generator.standard_normal((len(labels), FEATURES))
        return torch.from_numpy(np.float32(inputs)), torch.from_numpy(labels)

    parts = {}
    for client in CLIENTS:
        shares = generator.dirichlet(np.full(CLASSES, 1.0))
        parts[client] = examples(generator.choice(CLASSES, 320, p=shares))
    return parts, *examples(generator.integers(0, CLASSES, 2000))


PARTS, TEST_INPUTS, TEST_LABELS = _data()


def _tensors(network: torch.nn.Module) -> Tensors:
    return {n: t.detach().numpy().copy() for n, t in network.state_dict().items() if "num_batches" not in n}


_TRAINED: dict[tuple[str, int, bytes], Tensors] = {}


def _trained(weights: Tensors, client: str, number: int) -> Tensors:
    """What the client makes of the weights in this round. All runs whose attacker is rejected go the same way."""
    start = hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).digest()
    if (client, number, start) not in _TRAINED:
        _TRAINED[client, number, start] = _train(weights, client, number)
    return dict(_TRAINED[client, number, start])


def _train(weights: Tensors, client: str, number: int) -> Tensors:
    network = _network().train()
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, strict=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    inputs, labels = PARTS[client]
    order = np.random.default_rng([number, int(client[1:])]).permutation(len(labels))
    for step in range(STEPS):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen]).backward()
        optimizer.step()
    return _tensors(network)


def _update(client: str, tensors: Tensors) -> ReceivedUpdate:
    metadata = UpdateMetadata(
        block=0, program="whole", examples=320, steps=STEPS, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


def _run(attack: Attack | None, *, robust: bool) -> tuple[float, set[str], Tensors]:
    """Accuracy, who was rejected or cut down in any round, and the weights."""
    network = _network()
    parameters = {name for name, _ in network.named_parameters()}
    weights = _tensors(network)
    roles = {n: TrainedTensor(shape=t.shape, role="parameter" if n in parameters else "running_statistic")
             for n, t in weights.items()}  # fmt: skip
    structure = Structure(
        model=tuple(weights), partition=blocks_of_one_unit(1), blocks=(frozenset(weights),), trained={WORK: roles}
    )
    asked = {client: Asked(work=WORK, batch=BATCH, examples=320, steps=STEPS) for client in CLIENTS}
    touched: set[str] = set()
    for number in range(ROUNDS):
        sent = {client: _trained(weights, client, number) for client in CLIENTS}
        if attack is not None:
            sent[ATTACKER] = attack(sent[ATTACKER], weights)
        updates = [_update(client, tensors) for client, tensors in sent.items()]
        accepted, rejected = judge(updates, asked, structure, "v", weights, robust=robust)
        touched |= set(rejected) | {update.client for update in accepted if update.cut}
        weights = copy.copy(weights) | average(accepted, weights)
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, strict=False)
    with torch.no_grad():
        answers = network.eval()(TEST_INPUTS).argmax(1)
    return float((answers == TEST_LABELS).double().mean()), touched, weights


@pytest.fixture(scope="module")
def honest() -> float:
    accuracy, touched, weights = _run(None, robust=True)
    assert touched == set() and accuracy > 0.8
    # Nothing honest is touched: the same bits as without the comparison.
    for name, tensor in _run(None, robust=False)[2].items():
        np.testing.assert_array_equal(weights[name], tensor)
    return accuracy


@pytest.mark.parametrize("name", ATTACKS)
def test_one_client_of_ten_does_not_decide(name: str, honest: float) -> None:
    accuracy, touched, _ = _run(ATTACKS[name], robust=True)
    assert accuracy > honest - 0.02
    assert ATTACKER in touched


@pytest.mark.parametrize("name", ["variances of 9e5", "-9 times its move"])
def test_without_the_comparison_it_does(name: str, honest: float) -> None:
    assert _run(ATTACKS[name], robust=False)[0] < honest - 0.3
