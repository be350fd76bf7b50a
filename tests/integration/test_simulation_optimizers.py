"""The clients' optimizers in a simulation are those of PyTorch, and learn real digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from device_profiles.errors import FormatError  # noqa: E402
from device_profiles.manifest import Optimizer  # noqa: E402
from server.engines.simulation.optimizers import LocalStep  # noqa: E402
from server.fleet.reading import fleet_of, read_fleet  # noqa: E402
from server.rounds.observer import Observer  # noqa: E402
from server.running.run_fleet import run_fleet  # noqa: E402

OPTIMIZERS: dict[str, tuple[Optimizer, Any]] = {
    "sgd": (
        Optimizer(name="sgd", momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "nesterov": (
        Optimizer(name="sgd", momentum=0.8, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
    ),
    "adamw": (
        Optimizer(name="adamw", weight_decay=0.1, beta1=0.8, beta2=0.95, eps=1e-3),
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_pytorch(name: str) -> None:
    optimizer, theirs = OPTIMIZERS[name]
    torch.manual_seed(0)
    start = [torch.randn(3, 4), torch.randn(5)]
    ours = [tensor.clone() for tensor in start]
    expected = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    updates, reference = LocalStep(optimizer, 0.1).start(start), theirs(expected)
    for _ in range(5):
        gradients = [torch.randn_like(tensor) for tensor in start]
        for parameter, gradient in zip(expected, gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()
        updates.update(ours, [gradient.clone() for gradient in gradients])
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)


def test_a_momentum_in_half_the_bytes_is_rounded_between_steps_alone() -> None:
    step = LocalStep(Optimizer(name="sgd", momentum=1.0, momentum_dtype="bfloat16"), 1.0)
    parameter = [torch.zeros(1)]
    updates = step.start(parameter)
    third = torch.tensor([1 / 3])
    updates.update(parameter, [third.clone()])
    assert parameter[0] == -third
    updates.update(parameter, [third.clone()])
    assert parameter[0] == -third - (third.bfloat16().float() + third)


FLEET = """
[model]
name = "cnn"
width = 8
batch = 16
[data]
sources = ["digits"]
[population]
count = 4
memory_mb = [64, 65]
[method]
name = "fedavg"
[promises]
source = "pytorch"
[training]
epochs = 2
optimizer = "adamw"
learning_rate = 0.005
rounds = 4
"""


def test_digits_are_learned_with_adamw(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    fleet = read_fleet(tmp_path / "fleet.toml")
    run_fleet(fleet, tmp_path / "run", resume=False, observer=Observer(), note=lambda line: None, engine="simulation")
    accuracies = [json.loads(line)["accuracy"] for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert accuracies[-1] > 0.35 and accuracies[-1] > accuracies[0], accuracies


def test_settings_of_another_optimizer_are_refused_by_their_key() -> None:
    values: dict[str, Any] = {"model": {"name": "cnn"}, "data": {"sources": ["digits"]}, "population": {"count": 2}}
    for training, said in (
        ({"optimizer": "adamw", "momentum": 0.9}, 'training.momentum requires training.optimizer = "sgd"'),
        ({"optimizer": "adamw", "proximal": 0.1}, 'training.proximal requires training.optimizer = "sgd"'),
        ({"beta1": 0.9}, 'training.beta1 requires training.optimizer = "adamw"'),
        ({"nesterov": True, "momentum": 0.0}, "training.nesterov requires training.momentum above 0"),
        ({"optimizer": "lamb"}, "training.optimizer: 'lamb' is none of sgd, adamw"),
    ):
        with pytest.raises(FormatError) as raised:
            fleet_of({**values, "training": training}, Path("fleet.toml"))
        assert said in str(raised.value) and "\n" not in str(raised.value)
    assert fleet_of({**values, "training": {"optimizer": "adamw"}}, Path("f")).training.learning_rate == 3e-4
    assert fleet_of(values, Path("f")).training.learning_rate == 0.005
