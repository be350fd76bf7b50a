"""Rounds in which trainings diverge: tried again from the same weights with half the learning rate."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import ExecutionError
from device_profiles.files import write_json
from device_profiles.task import Result, Task, diverged
from server.averaging.aggregation import ReceivedUpdate
from server.averaging.private import PrivacyBudget
from server.fleet.fleet import TrainingSettings
from server.fleet.privacy import PrivacySettings
from server.report.run_tables import report_table
from server.report.runs import read_run
from server.rounds.run_state import FLEET_NAME, RunFolder
from server.running.progress import TerminalProgress
from tests.support.fake_run import Answer, FakeEngine, broken, fleet_of, lines_of, run

RATE = TrainingSettings().learning_rate


def _exploding(update: ReceivedUpdate) -> ReceivedUpdate:
    return dataclasses.replace(update, metadata=msgspec.structs.replace(update.metadata, loss_last=100.0))


def _dead(update: ReceivedUpdate, task: Task) -> Result:
    return Result(client=task.client, status=diverged("step 3 of grow-block1: the loss is inf"), seconds=0.1)


DIVERGING: dict[str, Callable[[ReceivedUpdate, Task], Answer]] = {
    "tensors that are not finite": lambda update, task: broken(update),
    "a loss beyond bounds": lambda update, task: _exploding(update),
    "what the client says": _dead,
}


def _rates(engine: FakeEngine) -> list[float]:
    return [tasks[0].learning_rate / RATE for tasks in engine.calls]


@pytest.mark.parametrize("how", DIVERGING)
def test_a_round_in_which_most_diverge_is_tried_again_at_half_the_rate_to_the_end_of_the_stage(
    how: str, tmp_path: Path
) -> None:
    def fate(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        return DIVERGING[how](update, task) if call == 1 and task.client != "a" else update

    engine = FakeEngine(fate=fate)
    state, _ = run(tmp_path, engine)
    assert state.finished and state.rate_halvings == 0
    # Two rounds a stage; the first of the first one is tried twice, from the same weights.
    assert _rates(engine) == [1, 0.5, 0.5, 1, 1, 1, 1]
    assert engine.calls[0][0].base_version == engine.calls[1][0].base_version
    assert engine.calls[0][0].seed != engine.calls[1][0].seed
    lines = lines_of(tmp_path)
    assert [line["rate_halvings"] for line in lines] == [1, 1, 0, 0, 0, 0]
    assert [result["client"] for result in lines[0]["repeated"]] == ["a", "b", "c"]


def test_it_is_tried_again_though_enough_delivered(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, u: broken(u) if call == 1 and task.client != "a" else u)
    run(tmp_path, engine, min_clients=1)
    assert _rates(engine)[:2] == [1, 0.5]


def test_one_of_three_that_diverges_is_left_out_and_changes_nothing_else(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, u: _exploding(u) if task.client == "c" else u)
    run(tmp_path, engine)
    assert _rates(engine) == [1] * 6
    assert all(line["rejected"] == {"c": "diverged: its loss went from 2 to 100"} for line in lines_of(tmp_path))


def test_one_of_two_cannot_lower_the_rate_of_the_other(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, u: broken(u) if task.client == "c" else u)
    run(tmp_path, engine, holders=("a", "c"), min_clients=1)
    assert _rates(engine) == [1] * 6


def test_updates_that_are_wrong_in_another_way_are_no_divergence(tmp_path: Path) -> None:
    def other_base(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        said = msgspec.structs.replace(update.metadata, base_version="0-other")
        return dataclasses.replace(update, metadata=said) if call == 1 else update

    engine = FakeEngine(fate=other_base)
    run(tmp_path, engine)
    assert _rates(engine) == [1] * 7


def test_when_the_last_attempt_diverges_too_the_run_stops_and_goes_on_with_the_smaller_rate(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"b: diverged: .*--resume goes on with 1/8 of the learning rate") as said:
        run(tmp_path, FakeEngine(fate=lambda call, task, u: broken(u) if call >= 2 and task.client != "a" else u))
    assert "\n" not in str(said.value)
    state, _ = RunFolder(tmp_path).load()
    assert (state.round, state.rate_halvings) == (1, 3)
    engine = FakeEngine()
    assert run(tmp_path, engine)[0].finished
    assert _rates(engine) == [0.125, 0.25, 0.25, 0.5, 0.5]  # each stage tries twice the rate of the last one


def test_with_one_attempt_what_delivered_counts_and_the_next_round_has_half_the_rate(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, u: broken(u) if call == 1 and task.client != "a" else u)
    run(tmp_path, engine, training=TrainingSettings(min_clients=1, attempts=1))
    assert _rates(engine) == [1, 0.5, 1, 1, 1, 1]


def test_a_stage_that_goes_on_after_an_interruption_keeps_its_rate(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def fate(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        if call == 3:
            raise Stopped
        return broken(update) if call == 1 else update

    with pytest.raises(Stopped):
        run(tmp_path, FakeEngine(fate=fate))
    engine = FakeEngine()
    run(tmp_path, engine)
    assert _rates(engine) == [0.5, 1, 1, 1, 1]


def test_with_differential_privacy_nobodys_divergence_changes_what_others_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it costs is not asked here, and counted by a package that may be missing.
    monkeypatch.setattr("server.rounds.schedule.PrivacyBudget", lambda settings: PrivacyBudget(None))
    private = PrivacySettings(clip_norm=1e6, noise_multiplier=1e-9)
    engine = FakeEngine(fate=lambda call, task, u: broken(u) if call == 1 and task.client != "a" else u)
    run(tmp_path, engine, privacy=private, min_clients=1)
    assert _rates(engine) == [1] * 6


def test_the_smaller_rate_is_told_while_the_run_goes_and_in_its_report(tmp_path: Path) -> None:
    said = io.StringIO()
    engine = FakeEngine(fate=lambda call, task, u: broken(u) if call in (1, 2, 6) and task.client != "a" else u)
    run(tmp_path, engine, observer=TerminalProgress(said))
    told = [line for line in said.getvalue().splitlines() if "learning rate" in line]
    assert told == [
        "  clients diverged: the learning rate is 1/4 of what it was set to, to the end of grow 1",
        "  clients diverged: the learning rate is 1/2 of what it was set to, to the end of grow 2",
        "  clients diverged: the learning rate is 1/4 of what it was set to, to the end of grow 2",
        "  clients diverged: the learning rate is 1/2 of what it was set to, to the end of grow 3",
    ]
    write_json(tmp_path / FLEET_NAME, fleet_of())
    assert report_table([read_run(tmp_path)]).splitlines()[-1] == (
        f"{tmp_path.name}: clients diverged, and the learning rate was lowered (grow 1 from round 1 on 1/4; grow 2 "
        "from round 1 on 1/2; grow 2 from round 2 on 1/4; grow 3 from round 1 on 1/2 of it)"
    )
