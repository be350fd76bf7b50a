"""What the tasks of a round say, and when a step ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from device_profiles.contract import STAND_IN_PREFIX
from device_profiles.errors import ExecutionError
from device_profiles.task import Task
from device_profiles.work import block_of, depth, distill, grow
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.client import Client, alike
from server.fleet.fleet import FreezingSettings, MethodSettings, TrainingSettings
from server.fleet.structure import Structure, TrainedTensor
from server.methods import create_method
from server.methods.method import Stage
from server.rounds.freezing import effective_movement, sample_scalars
from server.rounds.learning_rate import learning_rate
from server.rounds.observer import Observer
from server.rounds.run_state import RunFolder
from server.rounds.schedule import Schedule
from server.rounds.seam import Event, Failed
from server.rounds.tasks import asked_of
from tests.support.fake_run import (
    CLIENTS,
    MANIFEST,
    Answer,
    FakeEngine,
    FakeEvaluator,
    dead,
    fleet_of,
    initial_weights,
    lines_of,
    run,
)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [1, 1, 1, 1]), ("cosine", [1, 0.853553, 0.5, 0.146447]), ("step", [1, 1, 0.1, 0.01])],
)
def test_the_learning_rate_follows_its_schedule(schedule: Any, rates: list[float]) -> None:
    settings = TrainingSettings(schedule=schedule)
    assert [learning_rate(settings, 1.0, r, 4) for r in range(4)] == pytest.approx(rates, abs=1e-6)


def test_the_learning_rate_warms_up() -> None:
    settings = TrainingSettings(warmup_rounds=3)
    assert [learning_rate(settings, 1.0, r, 9) for r in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_what_the_fleet_file_says_of_training_reaches_every_task(tmp_path: Path) -> None:
    engine = FakeEngine()
    training = TrainingSettings(epochs=3, proximal=0.25, learning_rate=0.4, schedule="cosine")
    run(tmp_path, engine, rounds=4, training=training)
    tasks = [task for call in engine.calls for task in call]
    assert {(task.epochs, task.steps, task.proximal) for task in tasks} == {(3, None, 0.25)}
    rates = [call[0].learning_rate for call in engine.calls]
    # The schedule starts again with every block.
    assert rates == pytest.approx([0.4, 0.341421, 0.2, 0.058579] * 3, abs=1e-6)


def test_steps_reach_every_task_where_there_are_no_epochs(tmp_path: Path) -> None:
    engine = FakeEngine()
    run(tmp_path, engine, training=TrainingSettings(steps=7))
    assert {(task.epochs, task.steps) for call in engine.calls for task in call} == {(None, 7)}


class _Slow(FakeEngine):
    """Client a needs 10 seconds for a step, b a tenth of one; nobody knows about c."""

    def clients(self) -> Sequence[Client]:
        seconds = {"a": 10.0, "b": 0.1}
        works = [grow(MANIFEST.partition, block).name for block in (1, 2, 3)]
        return [
            dataclasses.replace(client, step_seconds=dict.fromkeys(works, seconds[client.name]))
            if client.name in seconds
            else client
            for client in super().clients()
        ]


def test_a_client_that_could_not_keep_the_deadline_does_fewer_steps_and_counts_by_them(tmp_path: Path) -> None:
    engine = _Slow()
    fleet = fleet_of(training=TrainingSettings(steps=8, deadline_seconds=50.0))
    run(tmp_path, engine, training=fleet.training)
    steps = {task.client: task.steps for task in engine.calls[0]}
    assert steps == {"a": 4, "b": 8, "c": 8}  # 80 % of the deadline is 40 seconds
    shares = {client: asked.share for client, asked in asked_of(fleet, engine.clients(), engine.calls[0]).items()}
    assert shares == {"a": 0.5, "b": 1.0, "c": 1.0}


def test_epochs_become_steps_where_the_deadline_is_too_near_and_one_is_the_least(tmp_path: Path) -> None:
    engine = _Slow()
    run(tmp_path, engine, training=TrainingSettings(epochs=50, deadline_seconds=5.0))
    assert {task.client: (task.epochs, task.steps) for task in engine.calls[0]} == {
        **{"a": (None, 1), "b": (None, 40), "c": (50, None)}
    }


_STAND_IN = f"{STAND_IN_PREFIX}block2.tested"


class _Refuses(FakeEngine):
    """Nobody delivers: what was asked for is in `calls`."""

    def answers(self, task: Task) -> list[Event]:
        return [Failed(task=task.key, result=dead(task))]


def _one_stage(folder: Path, stage: Stage, engine: FakeEngine) -> None:
    run_folder = RunFolder(folder)
    trained = {
        **Structure.of(MANIFEST).trained,
        distill(MANIFEST.partition, 2): {_STAND_IN: TrainedTensor(shape=(2,), role="parameter")},
        depth(MANIFEST.partition, 2): Structure.of(MANIFEST).trained[grow(MANIFEST.partition, 2)],
    }
    structure = dataclasses.replace(Structure.of(MANIFEST), trained=trained)
    engine.there = alike(dict.fromkeys(CLIENTS, 1), {work.name: 1 for work in trained})
    schedule = Schedule(
        fleet=fleet_of(training=TrainingSettings(learning_rate=0.5, attempts=1)),
        stages=[stage],
        structure=structure,
        engine=engine,
        evaluator=FakeEvaluator(),
        folder=run_folder,
        observer=Observer(),
    )
    weights = {**initial_weights(), _STAND_IN: np.zeros(2, np.float32)}
    with pytest.raises(ExecutionError):
        schedule.run(*run_folder.load_or_start("settings", lambda: weights))


def test_distillation_trains_with_its_own_learning_rate(tmp_path: Path) -> None:
    settings = MethodSettings(shrinking=True, distill_learning_rate=0.003)
    needs = {kind(MANIFEST.partition, block).name: 1 for kind in (grow, distill) for block in (1, 2, 3)}
    clients = alike(dict.fromkeys(CLIENTS, 2), needs)
    stages = create_method(settings).stages(fleet_of(method=settings), MANIFEST.partition, clients)
    distil = next(stage for stage in stages if stage.title == "distill 2")
    engine = _Refuses()
    _one_stage(tmp_path, distil, engine)
    assert {task.learning_rate for task in engine.calls[0]} == {0.003}


def test_self_distillation_comes_in_over_the_first_half_of_the_rounds(tmp_path: Path) -> None:
    work = depth(MANIFEST.partition, 2)
    stage = Stage(name="train", block=0, choices=(work,), evaluated=work, rounds=8, consistency=1.0)
    engine = _Refuses()
    _one_stage(tmp_path, stage, engine)
    assert engine.calls[0][0].consistency == pytest.approx(np.exp(-5.0))


def test_movement_is_that_of_the_sampled_scalars_of_the_block_alone(tmp_path: Path) -> None:
    """Written out from what clients send: the output module behind the block moves too, and does not count."""
    settings = FreezingSettings(window=2, fit_length=2, max_rounds=4, scalars=5, seed=3)
    states: list[dict[str, np.ndarray]] = []

    def remember(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        if task.client == "a" and block_of(task.work, MANIFEST.partition) == 1:
            states.append(load_file(task.weights))
        return update

    run(tmp_path, FakeEngine(fate=remember), freezing=settings)
    block = ("stage1.0.weight", "stage1.1.bias", "stage1.1.weight")
    sampled = [sample_scalars({name: state[name] for name in block}, 5, seed=3) for state in states]
    line = lines_of(tmp_path)[2]
    # states[k] are the weights after round k; round 3 (counted from 1) is the last that a task of the block saw.
    assert lines_of(tmp_path)[1]["effective_movement"] == pytest.approx(effective_movement(sampled[:3], 2))
    assert line["effective_movement"] == pytest.approx(effective_movement(sampled[1:4], 2))


def test_steps_of_equal_length_are_not_ended_by_movement(tmp_path: Path) -> None:
    calm = FreezingSettings(window=1, fit_length=2, threshold=1e9, patience=1, max_rounds=5)
    equal, _ = run(tmp_path / "equal", FakeEngine(), freezing=calm, method=MethodSettings(freezing="equal"))
    assert [(step.rounds, step.froze_because) for step in equal.steps] == [(5, "its 5 rounds")] * 3
    frozen, _ = run(tmp_path / "movement", FakeEngine(), freezing=calm)
    assert [step.rounds for step in frozen.steps] == [2, 2, 2]
