"""A run whose remaining steps were chosen again: how its state and its weights follow."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch", reason="programs are planned with torch")

from device_profiles.model import Partition
from server.engines.prepared import PreparedRun
from server.fleet.fleet import MethodSettings, TrainingSettings
from server.fleet.structure import Structure
from server.methods import create_method
from server.planner.steps import ChosenAgain, keep_chosen, plan_folder
from server.rounds.observer import Observer
from server.rounds.run_state import RunFolder, RunState
from server.running.planned_steps import PlannedSteps, carried
from server.running.run_fleet import _run
from tests.support.fake_run import CLIENTS, MANIFEST, FakeEngine, FakeEvaluator, clients_of, fleet_of, initial_weights


def test_stand_ins_of_blocks_that_stay_keep_what_they_have_learned() -> None:
    before, after = Partition.ending_with([0, 1, 3, 5]), Partition.ending_with([0, 1, 2, 5])
    names = ["conv", *(f"output_module.block{block}.weight" for block in (2, 3, 4))]
    weights = {name: np.full(2, 1.0) for name in [*names, "output_module.block9.weight"]}
    initial = {name: np.zeros(2) for name in [*names, "output_module.block5.weight"]}
    found = carried(weights, initial, before, after)
    assert {name: tensor[0] for name, tensor in found.items()} == {
        "conv": 1.0,
        "output_module.block2.weight": 1.0,
        "output_module.block3.weight": 0.0,
        "output_module.block4.weight": 0.0,
        "output_module.block5.weight": 0.0,
    }


_METHOD = MethodSettings(name="planned", freezing="equal")


def _trained(folder: Path, *, again: int | None) -> tuple[RunState, list[RunState]]:
    """A whole run; behind so many rounds it goes on with another plan of the same steps."""
    fleet = fleet_of(training=TrainingSettings(rounds=4, min_clients=2), method=_METHOD)
    engine, asked = FakeEngine(there=clients_of(dict.fromkeys(CLIENTS, 2 << 20))), list[RunState]()

    def next_plan(state: RunState) -> PreparedRun | None:
        asked.append(state)
        return prepared if state.round == again and not state.plan else None

    prepared = PreparedRun(
        engine=engine,
        evaluator=FakeEvaluator(),
        structure=Structure.of(MANIFEST),
        partition=MANIFEST.partition,
        model=MANIFEST.model,
        initial_weights=initial_weights,
        data="digits",
        again=next_plan,
    )
    folder.mkdir(exist_ok=True)
    if again is not None:
        plan_folder(folder, 1).mkdir(parents=True)
        keep_chosen(
            plan_folder(folder, 1),
            ChosenAgain(before_round=again + 1, done=1, clients=3, ends=(0, 1), ends_before=(0, 1)),
        )
    summary = _run(fleet, folder, "settings", create_method(_METHOD), prepared, Observer(), lambda line: None)
    assert len(summary.planned_again) == (again is not None)
    return RunFolder(folder).load()[0], asked


def test_a_run_goes_on_with_another_plan_between_two_steps_and_nowhere_else(tmp_path: Path) -> None:
    plain, asked = _trained(tmp_path / "plain", again=None)
    steps = len(plain.steps)
    assert steps > 1 and plain.plan == 0
    assert [state.stage for state in asked] == list(range(1, steps))
    assert all(state.round_of_stage == 0 for state in asked)
    other, _ = _trained(tmp_path / "other", again=asked[0].round)
    assert other.plan == 1 and other.weights_sha256 == plain.weights_sha256
    names = [path.name for path in (tmp_path / "other" / "weights").iterdir()]
    assert names == ["000004-1.safetensors"]


def test_a_kill_at_any_moment_of_the_change_leaves_one_plan_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(os, "fsync", lambda file: None)
    replace, plans, points = os.replace, set[int](), list[int]()
    prepared: Any = SimpleNamespace(
        again=lambda state: prepared, initial_weights=initial_weights, partition=MANIFEST.partition
    )

    def killed(*arguments: Any, **options: Any) -> None:
        points[-1] -= 1
        if points[-1] == 0:
            raise Killed
        replace(*arguments, **options)

    for point in range(1, 5):
        folder = RunFolder(tmp_path / str(point))
        folder.folder.mkdir()
        state, weights = folder.load_or_start("settings", initial_weights)
        state = folder.save(msgspec.structs.replace(state, round=2, stage=1), weights, None)
        steps = PlannedSteps(folder, prepared)
        assert steps.may_change(state)
        points.append(point)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "replace", killed)
            steps.changed(state, weights)
        found, tensors = folder.load()
        plans.add(found.plan)
        assert found.round == 2 and tensors.keys() == weights.keys()
    assert plans == {0, 1}
