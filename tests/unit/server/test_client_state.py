"""State of clients and of the server's optimizer, shown with SCAFFOLD (Karimireddy et al., ICML 2020) on quadratics.

Clients pull the weights to places of their own, some harder than others: with many local steps FedAvg ends beside the
optimum of their sum, SCAFFOLD at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from device_profiles.task import Result, Task
from device_profiles.update import UpdateMetadata
from device_profiles.work import Whole
from server.averaging.aggregation import ReceivedUpdate
from server.averaging.optimizers.optimizer import ServerOptimizer, State, Values
from server.fleet.client import Client
from server.fleet.fleet import TrainingSettings
from server.fleet.structure import Structure, TrainedTensor
from server.methods.method import Stage
from server.rounds.observer import Observer
from server.rounds.run_state import RunFolder
from server.rounds.schedule import Schedule
from server.rounds.seam import Event, Failed, Updated
from tests.support.fake_run import FakeEngine, FakeEvaluator, fleet_of
from tests.support.partitions import blocks_of_one_unit

STEPS, RATE, ROUNDS = 10, 0.1, 60
PULL = {"a": 1.0, "b": 2.0, "c": 0.2}
PLACE = {"a": np.array([1.0, 0.0, 3.0]), "b": np.array([-1.0, 2.0, 0.0]), "c": np.array([9.0, -7.0, 5.0])}
OPTIMUM = sum(PULL[name] * PLACE[name] for name in PULL) / sum(PULL.values())
WORK = Whole()
STRUCTURE = Structure(
    model=("w",),
    partition=blocks_of_one_unit(1),
    blocks=(frozenset({"w"}),),
    trained={WORK: {"w": TrainedTensor(shape=(3,), role="parameter")}},
)
CLIENTS = [Client(name=name, budget_bytes=1, needs={WORK.name: 1}, examples=32) for name in PULL]


class ScaffoldServer:
    """The clients' mean, and the server's control variate: with everybody in every round, the mean gradient."""

    def __init__(self) -> None:
        self.state: State = {}

    def step(self, name: str, start: Values, mean: Values) -> Values:
        self.state[f"c.{name}"] = (start.astype(np.float64) - mean) / (STEPS * RATE)
        return mean


class Quadratic(FakeEngine):
    """Clients that train by gradients of their own quadratic, corrected by control variates where there are some."""

    def __init__(self, *, stop_at: int = 0, corrected: bool = True, dies: Callable[[Task], bool] = lambda t: False):
        super().__init__(there=CLIENTS)
        self.stop_at, self.corrected, self.dies = stop_at, corrected, dies

    def answers(self, task: Task) -> list[Event]:
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        name = task.client
        if self.dies(task):
            return [Failed(task=task.key, result=Result(client=name, status="died", seconds=0.0))]
        own = _kept(task.state, "own")
        common = _kept(task.server_state, "c.w")
        start = load_file(task.weights)["w"].astype(np.float64)
        trained = start
        for _ in range(STEPS):
            gradient = PULL[name] * (trained - PLACE[name])
            trained = trained - RATE * (gradient + (common - own if self.corrected else 0.0))
        state = {"own": own - common + (start - trained) / (STEPS * RATE)} if self.corrected else None
        metadata = UpdateMetadata(
            block=0,
            program=WORK.name,
            examples=32,
            steps=STEPS,
            base_version=task.base_version,
            loss_first=1.0,
            loss_last=1.0,
        )
        update = ReceivedUpdate(client=name, metadata=metadata, tensors={"w": trained.astype(np.float32)})
        result = Result(client=name, status="ok", seconds=0.0, examples=32)
        return [Updated(task=task.key, result=result, update=update, state=state)]


def _kept(path: Path | None, name: str) -> NDArray[np.float64]:
    tensors: Mapping[str, NDArray[Any]] = {} if path is None else load_file(path)
    return tensors.get(name, np.zeros(3))


def _run(folder: Path, engine: Quadratic, optimizer: Callable[[], ServerOptimizer] | None = None) -> NDArray[Any]:
    settings = TrainingSettings(aggregation="mean", steps=STEPS, learning_rate=RATE, rounds=ROUNDS, evaluate_every=1000)
    stage = Stage(name="train", block=0, choices=(WORK,), evaluated=WORK, rounds=ROUNDS)
    run_folder = RunFolder(folder)
    schedule = Schedule(
        fleet=fleet_of(training=settings),
        stages=[stage],
        structure=STRUCTURE,
        engine=engine,
        evaluator=FakeEvaluator(),
        folder=run_folder,
        observer=Observer(),
        optimizer=optimizer,
    )
    _, weights = schedule.run(*run_folder.load_or_start("settings", lambda: {"w": np.zeros(3, np.float32)}))
    return weights["w"]


def test_control_variates_of_clients_and_server_lead_to_the_optimum_that_fedavg_misses(tmp_path: Path) -> None:
    averaged = _run(tmp_path / "fedavg", Quadratic(corrected=False))
    corrected = _run(tmp_path / "scaffold", Quadratic(), ScaffoldServer)
    assert np.linalg.norm(averaged - OPTIMUM) > 0.1
    assert np.linalg.norm(corrected - OPTIMUM) < 1e-3


@pytest.mark.parametrize("stop_at", [1, 2, 20])
def test_a_resumed_run_has_the_same_state_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    whole = _run(tmp_path / "whole", Quadratic(), ScaffoldServer)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "broken", Quadratic(stop_at=stop_at), ScaffoldServer)
    # Clients that had answered the round that was lost: what they sent with it is lost too.
    (tmp_path / "broken" / "client_state" / "a.state").mkdir(parents=True, exist_ok=True)
    lost = tmp_path / "broken" / "client_state" / "a.state" / f"{stop_at:06d}.safetensors"
    lost.write_bytes(b"half")
    resumed = _run(tmp_path / "broken", Quadratic(), ScaffoldServer)
    np.testing.assert_array_equal(resumed, whole)


def test_a_client_that_fails_keeps_the_state_of_its_last_update(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []

    class Looks(Quadratic):
        def answers(self, task: Task) -> list[Event]:
            if task.client == "b":
                seen.append((len(self.calls), task.state.name if task.state else ""))
            return super().answers(task)

    engine = Looks(dies=lambda task: task.client == "b" and task.attempt in (6, 9))
    _run(tmp_path, engine, ScaffoldServer)
    # Three attempts a round: rounds 3 and 4 are numbers 6 and 9.
    assert seen[:6] == [
        (1, ""), (2, "000001.safetensors"), (3, "000002.safetensors"), (4, "000002.safetensors"),
        (5, "000002.safetensors"), (6, "000005.safetensors"),
    ]  # fmt: skip
    assert all(len(list(folder.iterdir())) == 1 for folder in (tmp_path / "client_state").iterdir())
