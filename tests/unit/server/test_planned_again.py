"""Steps that remain are chosen again for other clients: when, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="programs are planned with torch")

from device_profiles.model import Partition
from device_profiles.trades import TRADES, Trade, with_trade
from device_profiles.work import label
from server.engines.bundled import planned
from server.engines.bundled.planned import planned_again
from server.fleet.fleet import Fleet, MethodSettings, TrainingSettings
from server.planner.fleet_plan import Clients, Kind, groups_of
from server.planner.steps import (
    choose_steps,
    chosen_again,
    keep_steps,
    kept_steps,
    plan_folder,
)
from server.rounds.run_state import RunState
from tests.support.fake_run import fleet_of

_UNITS = 4
_ACTIVATIONS, _WEIGHTS = [8, 8, 8, 8], [1, 1, 1, 1]


def _kind() -> Kind:
    """Who trains a run of units keeps its activations and three times its weights, and the weights before it."""
    needs = {
        end: [
            sum(_ACTIVATIONS[first : end + 1]) + 3 * sum(_WEIGHTS[first : end + 1]) + sum(_WEIGHTS[:first]) + 1
            for first in range(end + 2)
        ]
        for end in range(_UNITS)
    }
    return Kind(name="any", needs=needs)


def _traded(trade: Trade) -> Kind:
    """All of it in one trade."""
    kind = _kind()
    return replace(kind, trades={end: [{trade: need} for need in needs] for end, needs in kind.needs.items()})


class _There:
    """A fleet of one kind of device."""

    def __init__(self, budgets: Sequence[int]) -> None:
        self.kinds = [_kind()]
        self.clients = Clients(
            budgets=np.array(budgets, np.int64),
            kinds=np.zeros(len(budgets), np.int64),
            names=tuple(f"d{n}" for n in range(len(budgets))),
        )

    def exact(self, partition: Partition) -> list[Kind]:
        return self.kinds


class _Programs:
    units = ("a", "b", "c", "d")

    def trains(self, work: object, partition: Partition) -> bool:
        return True

    def write_table(self, path: Path) -> None:
        pass


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where bundles were exported; each holds the programs that it was asked for."""
    done: list[Path] = []

    def export(fleet: Fleet, path: Path, programs: object, partition: Partition, taken: Sequence[Any]) -> Any:
        done.append(path)
        rows = [SimpleNamespace(work=work, name=with_trade(label(work, partition), trade)) for work, trade in taken]
        return SimpleNamespace(path=path, manifest=SimpleNamespace(programs=rows, partition=partition))

    monkeypatch.setattr(planned, "bundle_of_plan", export)
    monkeypatch.setattr(planned, "profiled_fleet", lambda programs, profiles, **_: _There(list(profiles.values())))
    monkeypatch.setattr(planned, "trades_of", lambda variants: ("default",))
    return done


class _Run:
    """A run that has planned for devices with these budgets."""

    def __init__(self, folder: Path, budgets: Sequence[int]) -> None:
        self.folder = folder
        self.said: list[str] = []
        training = TrainingSettings(rounds=12)
        self.fleet = fleet_of(training=training, method=MethodSettings(name="planned", coverage=1.0))
        there = _There(budgets)
        keep_steps(folder, choose_steps(groups_of(there.kinds, there.clients), _UNITS, coverage=1.0))
        self.bundle: Any = None
        self.again(budgets, done=0)

    def ends(self, number: int = 0) -> list[int]:
        steps = kept_steps(plan_folder(self.folder, number))
        assert steps is not None
        return [step.last_unit for step in steps.steps]

    def again(self, budgets: Sequence[int], *, done: int, rounds: int = 3, plan: int = 0) -> Any:
        """Plan again behind `done` steps; the first time all programs of the plan are missing."""
        state = RunState(
            settings_sha256="",
            round=rounds,
            stage=done,
            round_of_stage=0,
            steps=(),
            finished=False,
            weights_sha256="",
            rounds_bytes=1,
            plan=plan,
        )
        bundle = self.bundle or SimpleNamespace(
            manifest=SimpleNamespace(programs=(), partition=Partition.ending_with([3]))
        )
        found = planned_again(
            self.fleet,
            self.folder,
            self.said.append,
            _Programs(),  # type: ignore[arg-type]
            {f"d{n}": budget for n, budget in enumerate(budgets)},  # type: ignore[misc]
            {},
            bundle=bundle,
            state=state,
        )
        self.bundle = self.bundle or found
        return found


def test_the_plan_stays_for_the_same_devices_and_for_those_that_it_still_does_for(
    tmp_path: Path, exports: list[Path]
) -> None:
    run = _Run(tmp_path, [16, 30])
    assert run.ends() == [0, 1, 2, 3]
    assert run.again([16, 30], done=1) is None
    assert run.again([30, 16, 16], done=2) is None
    assert len(exports) == 1  # the plan that the test began with


def test_more_memory_makes_fewer_steps_of_those_that_remain(tmp_path: Path, exports: list[Path]) -> None:
    run = _Run(tmp_path, [16, 30])
    other = run.again([60, 60], done=1, rounds=3)
    assert run.ends(1) == [0, 3] and other.path == tmp_path / "plans" / "1" / "bundle"
    assert {"joint-blocks1-2", "head-block1"} <= {program.name for program in other.manifest.programs}
    (chosen,) = chosen_again(tmp_path, 1)
    assert chosen.line == (
        "before round 4, behind 1 finished steps, planned again for 2 devices: "
        "steps end with units 3 instead of 1, 2, 3"
    )
    assert run.said[-1].startswith(chosen.line)
    run.bundle = other
    assert run.again([60, 60], done=1, plan=1) is None


def test_less_memory_makes_more_steps_but_no_more_than_there_are_rounds(tmp_path: Path, exports: list[Path]) -> None:
    run = _Run(tmp_path, [28])
    assert run.ends() == [1, 3]
    assert run.again([16], done=1) is not None
    assert run.ends(1) == [1, 2, 3]
    assert run.again([16], done=1, rounds=11) is not None
    assert run.ends(1) == [1, 3]


def test_a_device_that_takes_another_program_gets_it_with_the_same_steps(tmp_path: Path, exports: list[Path]) -> None:
    run = _Run(tmp_path, [28])
    other = run.again([28, 36], done=1)
    assert run.ends(1) == run.ends() == [1, 3]
    assert "joint-units1-3" in {program.name for program in other.manifest.programs}
    assert "the same steps, other programs" in run.said[-1]


@pytest.mark.parametrize("trade", TRADES)
def test_programs_are_there_in_the_trades_that_their_names_say(
    trade: Trade, tmp_path: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_There, "exact", lambda self, partition: [_traded(trade)])
    run = _Run(tmp_path, [28])
    assert run.bundle is not None
    assert run.again([28], done=1) is None
    monkeypatch.setattr(_There, "exact", lambda self, partition: [_traded("micro2" if trade != "micro2" else "micro4")])
    assert run.again([28], done=1) is not None


def test_nothing_is_planned_for_devices_that_hold_nothing(tmp_path: Path, exports: list[Path]) -> None:
    assert _Run(tmp_path, [28]).again([1], done=1) is None


def test_what_a_killed_start_left_of_the_next_plan_is_no_part_of_it(tmp_path: Path, exports: list[Path]) -> None:
    left = tmp_path / "plans" / "1" / "bundle" / "manifest.json"
    run = _Run(tmp_path, [28])
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("{}")
    run.again([16], done=1)
    assert not left.exists()
