"""The growing schedule: what is trained when, and clients that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from device_profiles.errors import ExecutionError
from device_profiles.task import Task
from device_profiles.work import block_of
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.client import alike
from server.fleet.fleet import TrainingSettings
from server.methods import create_method
from server.rounds.run_state import RunFolder
from server.rounds.summary import Summary, summarise
from tests.support.fake_run import (
    CLIENTS,
    MANIFEST,
    Answer,
    FakeEngine,
    broken,
    dead,
    fleet_of,
    initial_weights,
    lines_of,
    run,
)


def _summary(folder: Path) -> Summary:
    fleet, run_folder = fleet_of(), RunFolder(folder)
    clients = alike(dict.fromkeys(CLIENTS, 1), {})
    return summarise(
        fleet=fleet,
        method="profl",
        data="digits",
        accuracy=0.5,
        stages=create_method(fleet.method).stages(fleet, MANIFEST.partition, clients),
        clients=clients,
        state=run_folder.load()[0],
        records=run_folder.records(),
        failed=run_folder.failures(),
        whole_network=None,
        model_file="model.safetensors",
    )


def test_blocks_grow_front_to_back_and_every_tensor_of_the_model_is_trained(tmp_path: Path) -> None:
    engine = FakeEngine()
    state, weights = run(tmp_path, engine)
    assert [block_of(tasks[0].work, MANIFEST.partition) for tasks in engine.calls] == [1, 1, 2, 2, 3, 3]
    assert [(step.block, step.rounds, step.froze_because) for step in state.steps] == [
        (block, 2, "round cap 2") for block in (1, 2, 3)
    ]
    start = initial_weights()
    for spec in MANIFEST.model.tensors:
        changed = not np.array_equal(weights[spec.name], start[spec.name])
        assert changed == (not spec.name.endswith("num_batches_tracked")), spec.name


def test_a_frozen_block_does_not_change_any_more(tmp_path: Path) -> None:
    after: dict[int, np.ndarray] = {}

    def remember(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        after[block_of(task.work, MANIFEST.partition)] = load_file(task.weights)["stage1.0.weight"]
        return update

    _, weights = run(tmp_path, FakeEngine(fate=remember))
    np.testing.assert_array_equal(after[2], after[3])
    np.testing.assert_array_equal(after[3], weights["stage1.0.weight"])


def test_every_round_has_other_seeds_and_starts_from_the_last_average(tmp_path: Path) -> None:
    engine = FakeEngine()
    run(tmp_path, engine)
    assert len({tasks[0].seed for tasks in engine.calls}) == 6
    assert len({tasks[0].base_version for tasks in engine.calls}) == 6


def test_clients_without_the_memory_get_no_task(tmp_path: Path) -> None:
    engine = FakeEngine()
    run(tmp_path, engine, holders=("a", "c"))
    assert {task.client for tasks in engine.calls for task in tasks} == {"a", "c"}
    assert lines_of(tmp_path)[0]["participation"] == pytest.approx(2 / 3)


def test_a_client_that_dies_is_reported_and_the_round_goes_on(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(fate=lambda call, task, update: dead(task) if task.client == "b" else update))
    lines = lines_of(tmp_path)
    assert len(lines) == 6
    for line in lines:
        assert [c["status"] for c in line["clients"]] == ["ok", "killed at its memory limit", "ok"]
        assert line["repeated"] == []


def test_a_round_in_which_too_few_deliver_is_repeated_and_its_first_attempt_kept(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, update: dead(task) if call == 1 and task.client != "a" else update)
    run(tmp_path, engine)
    first, *others = lines_of(tmp_path)
    assert [(c["client"], c["oom_kills"]) for c in first["repeated"]] == [("a", 0), ("b", 1), ("c", 1)]
    assert all(c["status"] == "ok" for c in first["clients"])
    assert all(line["repeated"] == [] for line in others) and len(engine.calls) == 7
    assert engine.calls[0][0].seed != engine.calls[1][0].seed
    assert engine.calls[0][0].base_version == engine.calls[1][0].base_version


def test_when_nobody_delivers_the_run_stops_saved_and_can_be_resumed(tmp_path: Path) -> None:
    stopped = FakeEngine(fate=lambda call, task, update: dead(task) if call >= 3 else update)
    with pytest.raises(ExecutionError, match=r"of 3 attempts.*a: killed at its memory limit.*after round 2.*--resume"):
        run(tmp_path, stopped)
    assert RunFolder(tmp_path).load()[0].round == 2
    state, _ = run(tmp_path, FakeEngine())
    assert state.finished
    assert [(line["round"], line["failed"]) for line in lines_of(tmp_path)] == [
        (1, False), (2, False), (3, True), (3, False), (4, False), (5, False), (6, False),
    ]  # fmt: skip


def test_a_run_that_stopped_and_goes_on_is_the_undisturbed_run_with_a_line_more(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError):
        run(tmp_path / "stopped", FakeEngine(fate=lambda call, task, update: dead(task) if call >= 3 else update))
    _, weights = run(tmp_path / "stopped", FakeEngine())
    _, undisturbed = run(tmp_path / "undisturbed", FakeEngine())
    assert all(np.array_equal(weights[name], tensor) for name, tensor in undisturbed.items())
    stopped, whole = RunFolder(tmp_path / "stopped"), RunFolder(tmp_path / "undisturbed")
    assert [record.round for record in stopped.records()] == [record.round for record in whole.records()]
    assert [record.round for record in stopped.failures()] == [3] and whole.failures() == []


def test_why_updates_were_rejected_is_kept_when_their_round_is_repeated(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(fate=lambda call, task, u: broken(u) if call == 1 and task.client != "a" else u))
    first, *others = lines_of(tmp_path)
    assert first["rejected"] == {} and [sorted(reasons) for reasons in first["rejected_before"]] == [["b", "c"]]
    assert "not finite" in first["rejected_before"][0]["b"]
    assert all(line["rejected_before"] == [] for line in others)
    summary = _summary(tmp_path)
    assert [(client.client, client.failures, client.rounds) for client in summary.clients] == [
        ("a", 0, 6), ("b", 1, 6), ("c", 1, 6),
    ]  # fmt: skip


def test_the_line_of_a_round_that_failed_says_who_was_rejected_and_the_summary_counts_it(tmp_path: Path) -> None:
    poisoned = FakeEngine(fate=lambda call, task, u: broken(u) if call >= 2 and task.client != "a" else u)
    with pytest.raises(ExecutionError) as raised:
        run(tmp_path, poisoned)
    said = str(raised.value)
    assert (
        "grow 1, round 2: 1 clients delivered in the last of 3 attempts, training.min_clients is 2 (b: diverged: tensor"
        in said
    )
    assert "a: ok" not in said and "\n" not in said
    line = lines_of(tmp_path)[-1]
    assert line["failed"] and line["round"] == 2 and line["accuracy"] is None
    assert sorted(line["rejected"]) == ["b", "c"] and len(line["rejected_before"]) == 2
    assert [result["client"] for result in line["repeated"]] == ["a", "b", "c"] * 2
    run(tmp_path, FakeEngine())
    assert [client.failures for client in _summary(tmp_path).clients] == [0, 3, 3]


def test_a_stop_names_only_some_of_many_failures(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, update: dead(task))
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ExecutionError, match=r"\(a: killed at its memory limit; 2 more in rounds\.jsonl\)"),
    ):
        patch.setattr("server.rounds.attempts._NAMED_FAILURES", 1)
        run(tmp_path, engine)


def test_too_small_a_fleet_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pytest.raises(ExecutionError, match=r"grow 1: 1 of 3 clients hold .* block 1, training\.min_clients is 2"):
        run(tmp_path, engine, holders=("a",))
    assert engine.calls == []


def test_clients_of_a_round_are_drawn_anew_and_the_same_for_a_seed(tmp_path: Path) -> None:
    drawn = []
    for folder in ("once", "again"):
        engine = FakeEngine()
        run(tmp_path / folder, engine, rounds=6, training=TrainingSettings(clients_per_round=2))
        drawn.append([tuple(task.client for task in tasks) for tasks in engine.calls])
    assert drawn[0] == drawn[1]
    assert all(len(clients) == 2 for clients in drawn[0]) and len(set(drawn[0])) == 3


def test_another_seed_draws_other_clients_and_other_orders(tmp_path: Path) -> None:
    drawn, seeds = [], []
    for seed in (0, 1):
        engine = FakeEngine()
        run(tmp_path / str(seed), engine, rounds=6, training=TrainingSettings(clients_per_round=2, seed=seed))
        drawn.append([tuple(task.client for task in tasks) for tasks in engine.calls])
        seeds.append({task.seed for tasks in engine.calls for task in tasks})
    assert drawn[0] != drawn[1] and not seeds[0] & seeds[1]


def test_the_last_step_takes_what_is_left_of_the_round_budget(tmp_path: Path) -> None:
    state, _ = run(tmp_path, FakeEngine(), training=TrainingSettings(rounds=9))
    assert [step.rounds for step in state.steps] == [2, 2, 5] and state.round == 9


def test_earlier_steps_leave_a_round_for_every_later_one(tmp_path: Path) -> None:
    state, _ = run(tmp_path, FakeEngine(), rounds=50, training=TrainingSettings(rounds=6))
    assert [step.rounds for step in state.steps] == [4, 1, 1]


def test_a_budget_smaller_than_the_number_of_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"training\.rounds 2: the method has 3 stages"):
        run(tmp_path, FakeEngine(), training=TrainingSettings(rounds=2))


def test_rounds_without_an_evaluation_say_so_and_a_step_ends_with_one(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(), rounds=3, training=TrainingSettings(evaluate_every=100))
    assert [line["accuracy"] is None for line in lines_of(tmp_path)] == [True, True, False] * 3
