"""One client of ten sends what no training gives; the model is as good as without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from server.aggregation import ReceivedUpdate
from server.engines.engine import Result, Task
from server.engines.simulation.engine import SimulationEngine
from server.fleet import (
    ClientSettings,
    DataSettings,
    Fleet,
    FreezingSettings,
    MethodSettings,
    ModelSettings,
    PromiseSettings,
    TrainingSettings,
)
from server.run import run_fleet
from server.run_state import RoundRecord, RunFolder
from server.schedule import Observer

CLIENTS = tuple(f"c{number}" for number in range(10))
ATTACKER = "c3"
Tensors = dict[str, np.ndarray]


def _of(fragment: str, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Tensors, Tensors], Tensors]:
    """Change what has `fragment` in its name, from what it was and what it started from."""

    def attack(own: Tensors, base: Tensors) -> Tensors:
        chosen = {name: tensor for name, tensor in own.items() if fragment in name}
        assert chosen
        return own | {name: np.float32(change(tensor, base[name])) for name, tensor in chosen.items()}

    return attack


def _moved(factor: float, only: str = "") -> Callable[[Tensors, Tensors], Tensors]:
    def attack(own: Tensors, base: Tensors) -> Tensors:
        chosen = [name for name in own if "running" not in name and only in name]
        return own | {name: base[name] + np.float32(factor) * (own[name] - base[name]) for name in chosen}

    return attack


ATTACKS = {
    "variances of 9e5": _of("running_var", lambda own, base: np.full_like(own, 9e5)),
    "variances of 50": _of("running_var", lambda own, base: own * 50),
    "variances just within the bound": _of("running_var", lambda own, base: own * 9),
    "variances of zero": _of("running_var", lambda own, base: own * 0),
    "one variance of 9e5": _of("running_var", lambda own, base: np.where(np.arange(len(own)) == 0, 9e5, own)),
    "means of 1e4": _of("running_mean", lambda own, base: np.full_like(own, 1e4)),
    "means just within the bound": _of("running_mean", lambda own, base: own + 3),
    "-9 times its move": _moved(-9.0),
    "9 times its move": _moved(9.0),
    "-3 times its move": _moved(-3.0),
    "-1 times its move": _moved(-1.0),
    "-9 times one tensor's move": _moved(-9.0, "stage1.0.weight"),
    "zeros": _of("", lambda own, base: own * 0),
}


def _fleet(aggregation: str) -> Fleet:
    return Fleet(
        model=ModelSettings(name="cnn", width=8, batch=16, input_shape=(1, 28, 28)),
        data=DataSettings(sources=("mnist-5k",), split="dirichlet", alpha=0.5, min_examples=32),
        clients=tuple(ClientSettings(name=name, limit_mb=900) for name in CLIENTS),
        method=MethodSettings(name="fedavg"),
        training=msgspec.convert({"aggregation": aggregation}, TrainingSettings),
        freezing=FreezingSettings(),
        promises=PromiseSettings(source="pytorch"),
    )


def _run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, attack: Callable[[Tensors, Tensors], Tensors] | None, how: str
) -> tuple[float, list[RoundRecord]]:
    train = SimulationEngine.train

    def attacked(
        self: SimulationEngine, tasks: Sequence[Task], done: Callable[[Result], None]
    ) -> tuple[list[Result], list[ReceivedUpdate]]:
        results, updates = train(self, tasks, done)
        if attack is None:
            return results, updates
        base = load_file(tasks[0].weights)
        return results, [
            replace(update, tensors=attack(dict(update.tensors), base)) if update.client == ATTACKER else update
            for update in updates
        ]

    fleet = _fleet(how)
    settings = msgspec.structs.replace(fleet.training, steps=10, rounds=8, learning_rate=0.02, evaluate_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(SimulationEngine, "train", attacked)
        summary = run_fleet(
            msgspec.structs.replace(fleet, training=settings),
            folder,
            resume=False,
            observer=Observer(),
            note=lambda text: None,
            engine="simulation",
        )
    return summary.accuracy, RunFolder(folder).records()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> float:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("honest")
        robust, records = _run(folder / "robust", patch, None, "robust")
        plain, _ = _run(folder / "mean", patch, None, "mean")
    # Nothing honest is touched: the same bits as without the comparison.
    assert all(not record.rejected and not record.cut for record in records)
    assert robust == plain and robust > 0.8
    weights = [load_file(next((folder / how / "weights").iterdir())) for how in ("robust", "mean")]
    for name, tensor in weights[0].items():
        np.testing.assert_array_equal(tensor, weights[1][name])
    return robust


@pytest.mark.parametrize("name", ATTACKS)
def test_one_client_of_ten_does_not_decide(
    name: str, honest: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy, records = _run(tmp_path / "run", monkeypatch, ATTACKS[name], "robust")
    assert accuracy > honest - 0.03
    assert all(not (set(record.rejected) | set(record.cut)) - {ATTACKER} for record in records)


@pytest.mark.parametrize("name", ["variances of 9e5", "-9 times its move"])
def test_without_the_comparison_it_does(
    name: str, honest: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy, _ = _run(tmp_path / "run", monkeypatch, ATTACKS[name], "mean")
    assert accuracy < honest - 0.3
