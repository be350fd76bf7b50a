"""The growing schedule: what is trained when, and clients that fail."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from device_profiles.contract import STAND_IN_PREFIX
from device_profiles.errors import ExecutionError
from device_profiles.task import Result, Task
from device_profiles.work import block_of, depth, distill, grow
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.client import alike
from server.fleet.fleet import FreezingSettings, MethodSettings, TrainingSettings
from server.fleet.structure import Structure, TrainedTensor
from server.methods import create_method
from server.methods.method import Stage
from server.rounds.freezing import effective_movement, sample_scalars
from server.rounds.learning_rate import learning_rate
from server.rounds.run_state import RunFolder
from server.rounds.schedule import Observer, Schedule
from server.rounds.seam import Event, Failed, Updated
from server.rounds.summary import Summary, summarise
from tests.support.fake_run import CLIENTS, MANIFEST, FakeEngine, FakeEvaluator, fleet_of, initial_weights, run

Answer = ReceivedUpdate | Result


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_bytes().splitlines()]


def _dead(task: Task) -> Result:
    return Result(client=task.client, status="killed at its memory limit", seconds=0.1, oom_kills=1)


def _broken(update: ReceivedUpdate) -> ReceivedUpdate:
    tensors = {name: np.full_like(tensor, np.nan) for name, tensor in update.tensors.items()}
    return dataclasses.replace(update, tensors=tensors)


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
    assert _lines(tmp_path)[0]["participation"] == pytest.approx(2 / 3)


def test_a_client_that_dies_is_reported_and_the_round_goes_on(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(fate=lambda call, task, update: _dead(task) if task.client == "b" else update))
    lines = _lines(tmp_path)
    assert len(lines) == 6
    for line in lines:
        assert [c["status"] for c in line["clients"]] == ["ok", "killed at its memory limit", "ok"]
        assert line["repeated"] == []


def test_a_round_in_which_too_few_deliver_is_repeated_and_its_first_attempt_kept(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, update: _dead(task) if call == 1 and task.client != "a" else update)
    run(tmp_path, engine)
    first, *others = _lines(tmp_path)
    assert [(c["client"], c["oom_kills"]) for c in first["repeated"]] == [("a", 0), ("b", 1), ("c", 1)]
    assert all(c["status"] == "ok" for c in first["clients"])
    assert all(line["repeated"] == [] for line in others) and len(engine.calls) == 7
    assert engine.calls[0][0].seed != engine.calls[1][0].seed
    assert engine.calls[0][0].base_version == engine.calls[1][0].base_version


def test_when_nobody_delivers_the_run_stops_saved_and_can_be_resumed(tmp_path: Path) -> None:
    stopped = FakeEngine(fate=lambda call, task, update: _dead(task) if call >= 3 else update)
    with pytest.raises(ExecutionError, match=r"of 3 attempts.*a: killed at its memory limit.*after round 2.*--resume"):
        run(tmp_path, stopped)
    assert RunFolder(tmp_path).load()[0].round == 2
    state, _ = run(tmp_path, FakeEngine())
    assert state.finished
    assert [(line["round"], line["failed"]) for line in _lines(tmp_path)] == [
        (1, False), (2, False), (3, True), (3, False), (4, False), (5, False), (6, False),
    ]  # fmt: skip


def test_a_run_that_stopped_and_goes_on_is_the_undisturbed_run_with_a_line_more(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError):
        run(tmp_path / "stopped", FakeEngine(fate=lambda call, task, update: _dead(task) if call >= 3 else update))
    _, weights = run(tmp_path / "stopped", FakeEngine())
    _, undisturbed = run(tmp_path / "undisturbed", FakeEngine())
    assert all(np.array_equal(weights[name], tensor) for name, tensor in undisturbed.items())
    stopped, whole = RunFolder(tmp_path / "stopped"), RunFolder(tmp_path / "undisturbed")
    assert [record.round for record in stopped.records()] == [record.round for record in whole.records()]
    assert [record.round for record in stopped.failures()] == [3] and whole.failures() == []


def test_why_updates_were_rejected_is_kept_when_their_round_is_repeated(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(fate=lambda call, task, u: _broken(u) if call == 1 and task.client != "a" else u))
    first, *others = _lines(tmp_path)
    assert first["rejected"] == {} and [sorted(reasons) for reasons in first["rejected_before"]] == [["b", "c"]]
    assert "not finite" in first["rejected_before"][0]["b"]
    assert all(line["rejected_before"] == [] for line in others)
    summary = _summary(tmp_path)
    assert [(client.client, client.failures, client.rounds) for client in summary.clients] == [
        ("a", 0, 6), ("b", 1, 6), ("c", 1, 6),
    ]  # fmt: skip


def test_the_line_of_a_round_that_failed_says_who_was_rejected_and_the_summary_counts_it(tmp_path: Path) -> None:
    poisoned = FakeEngine(fate=lambda call, task, u: _broken(u) if call >= 2 and task.client != "a" else u)
    with pytest.raises(ExecutionError) as raised:
        run(tmp_path, poisoned)
    said = str(raised.value)
    assert (
        "grow 1, round 2: 1 clients delivered in the last of 3 attempts, training.min_clients is 2 (b: tensor" in said
    )
    assert "a: ok" not in said and "\n" not in said
    line = _lines(tmp_path)[-1]
    assert line["failed"] and line["round"] == 2 and line["accuracy"] is None
    assert sorted(line["rejected"]) == ["b", "c"] and len(line["rejected_before"]) == 2
    assert [result["client"] for result in line["repeated"]] == ["a", "b", "c"] * 2
    run(tmp_path, FakeEngine())
    assert [client.failures for client in _summary(tmp_path).clients] == [0, 3, 3]


def test_a_stop_names_only_some_of_many_failures(tmp_path: Path) -> None:
    engine = FakeEngine(fate=lambda call, task, update: _dead(task))
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


def test_a_poisoned_update_stays_out_of_the_average_and_is_named(tmp_path: Path) -> None:
    def poison(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        if task.client != "b":
            return update
        name = next(iter(update.tensors))
        return ReceivedUpdate(
            client="b",
            metadata=update.metadata,
            tensors={**update.tensors, name: update.tensors[name] * np.float32("nan")},
        )

    _, weights = run(tmp_path / "poisoned", FakeEngine(fate=poison))
    _, without = run(
        tmp_path / "without", FakeEngine(fate=lambda call, task, update: _dead(task) if task.client == "b" else update)
    )
    assert all("not finite" in line["rejected"]["b"] for line in _lines(tmp_path / "poisoned"))
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor, without[name])


def test_an_update_from_older_weights_is_rejected(tmp_path: Path) -> None:
    def stale(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        if task.client != "c":
            return update
        return ReceivedUpdate(
            client="c",
            metadata=msgspec.structs.replace(update.metadata, base_version="0-older"),
            tensors=update.tensors,
        )

    run(tmp_path, FakeEngine(fate=stale))
    assert all(line["rejected"]["c"].startswith("started from weights 0-older") for line in _lines(tmp_path))


class _Sends(FakeEngine):
    """Whatever the clients answer, these updates are what arrives."""

    def __init__(self, change: Callable[[list[ReceivedUpdate]], list[ReceivedUpdate]]) -> None:
        super().__init__()
        self.change = change

    def events(self, deadline: float | None) -> Generator[Event]:
        if not self.out:
            return
        events = list(super().events(deadline))
        updates = [event.update for event in events if isinstance(event, Updated)]
        told = {event.task.client: event for event in events if isinstance(event, Updated)}
        for update in self.change(updates):
            event = told.get(update.client, events[0])
            assert isinstance(event, Updated)
            key = event.task._replace(client=update.client)
            yield dataclasses.replace(event, task=key, update=update)


def _assert_only_a_and_b_count(folder: Path, engine: FakeEngine) -> None:
    _, weights = run(folder / "odd", engine)
    _, without = run(
        folder / "without", FakeEngine(fate=lambda call, task, update: _dead(task) if task.client == "c" else update)
    )
    for name, tensor in without.items():
        np.testing.assert_array_equal(weights[name], tensor)


def test_an_update_of_a_client_without_a_task_is_rejected(tmp_path: Path) -> None:
    run(tmp_path, _Sends(lambda updates: [*updates, dataclasses.replace(updates[0], client="stranger")]))
    assert all(line["rejected"] == {"stranger": "has no task in this round"} for line in _lines(tmp_path))


def test_a_client_that_answers_twice_does_not_count_at_all(tmp_path: Path) -> None:
    _assert_only_a_and_b_count(tmp_path, _Sends(lambda updates: [*updates, updates[2]]))
    assert all(line["rejected"] == {"c": "sent 2 updates"} for line in _lines(tmp_path / "odd"))


@pytest.mark.parametrize("examples", [10**12, 10 + ord("c") + 1, 1])
def test_a_client_cannot_choose_its_weight_in_the_mean(examples: int, tmp_path: Path) -> None:
    def boast(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        said = msgspec.structs.replace(update.metadata, examples=examples)
        return dataclasses.replace(update, metadata=said) if task.client == "c" else update

    _assert_only_a_and_b_count(tmp_path, FakeEngine(fate=boast))
    reason = f"says that it has {examples} examples; the fleet gave it 109"
    assert all(line["rejected"] == {"c": reason} for line in _lines(tmp_path / "odd"))


def _stops_early(done: int | None) -> Callable[[int, Task, ReceivedUpdate], Answer]:
    def stop(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        said = msgspec.structs.replace(update.metadata, stopped_early=True, examples_done=done)
        return dataclasses.replace(update, metadata=said) if task.client == "c" else update

    return stop


@pytest.mark.parametrize(
    ("training", "asked"),
    # Batches of 32: 20 steps; or 2 epochs of the 3 whole batches that 109 examples have.
    [(TrainingSettings(steps=20), 640), (TrainingSettings(epochs=2), 192)],
)
def test_an_update_that_stopped_early_weighs_by_the_share_of_its_work(
    training: TrainingSettings, asked: int, tmp_path: Path
) -> None:
    sent: list[ReceivedUpdate] = []
    engine = FakeEngine(fate=lambda *given: sent.append(early(*given)) or sent[-1])  # type: ignore[func-returns-value]
    early = _stops_early(asked // 4)
    run(tmp_path, engine, rounds=1, training=training)
    assert all(line["stopped_early"] == {"c": 0.25} and line["rejected"] == {} for line in _lines(tmp_path))
    names = sorted(sent[0].tensors)
    weights = [float(update.metadata.examples) for update in sent[:2]] + [sent[2].metadata.examples / 4]
    after = load_file(tmp_path / "weights" / "000003.safetensors")
    own = set(names) - {name for update in sent[3:] for name in update.tensors}
    assert "stage1.0.weight" in own
    for name in own:
        expected = sum(u.tensors[name] * np.float64(w) for u, w in zip(sent[:3], weights, strict=True)) / sum(weights)
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("done", [None, 0, -32, 641, 10**12])
def test_what_an_early_stopped_client_cannot_have_done_is_rejected(done: int | None, tmp_path: Path) -> None:
    _assert_only_a_and_b_count(tmp_path, FakeEngine(fate=_stops_early(done)))
    assert all(line["rejected"]["c"].startswith("stopped early") for line in _lines(tmp_path / "odd"))


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
    assert [line["accuracy"] is None for line in _lines(tmp_path)] == [True, True, False] * 3


def test_an_update_that_moved_absurdly_far_is_left_out(tmp_path: Path) -> None:
    def huge(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        if task.client != "a":
            return update
        tensors = {name: tensor * np.float32(1e6) for name, tensor in update.tensors.items()}
        return ReceivedUpdate(client="a", metadata=update.metadata, tensors=tensors)

    run(tmp_path, FakeEngine(fate=huge))
    assert all("parameters moved by" in line["rejected"]["a"] for line in _lines(tmp_path))


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


_STAND_IN = f"{STAND_IN_PREFIX}block2.tested"


class _Refuses(FakeEngine):
    """Nobody delivers: what was asked for is in `calls`."""

    def answers(self, task: Task) -> list[Event]:
        return [Failed(task=task.key, result=_dead(task))]


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
    line = _lines(tmp_path)[2]
    # states[k] are the weights after round k; round 3 (counted from 1) is the last that a task of the block saw.
    assert _lines(tmp_path)[1]["effective_movement"] == pytest.approx(effective_movement(sampled[:3], 2))
    assert line["effective_movement"] == pytest.approx(effective_movement(sampled[1:4], 2))


def test_steps_of_equal_length_are_not_ended_by_movement(tmp_path: Path) -> None:
    calm = FreezingSettings(window=1, fit_length=2, threshold=1e9, patience=1, max_rounds=5)
    equal, _ = run(tmp_path / "equal", FakeEngine(), freezing=calm, method=MethodSettings(freezing="equal"))
    assert [(step.rounds, step.froze_because) for step in equal.steps] == [(5, "its 5 rounds")] * 3
    frozen, _ = run(tmp_path / "movement", FakeEngine(), freezing=calm)
    assert [step.rounds for step in frozen.steps] == [2, 2, 2]


def test_losses_of_rejected_clients_are_not_in_the_mean(tmp_path: Path) -> None:
    class Boasts(FakeEngine):
        def answers(self, task: Task) -> list[Event]:
            (event,) = super().answers(task)
            assert isinstance(event, Updated)
            loss = 1e9 if task.client == "c" else 1.0
            return [dataclasses.replace(event, result=msgspec.structs.replace(event.result, loss_last=loss))]

    run(tmp_path, Boasts(fate=lambda call, task, update: _broken(update) if task.client == "c" else update))
    assert [line["loss"] for line in _lines(tmp_path)] == [1.0] * 6
