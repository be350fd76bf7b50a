"""Which updates a round counts, and with what weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from device_profiles.task import Task
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.fleet import TrainingSettings
from server.rounds.seam import Event, Updated
from tests.support.fake_run import (
    Answer,
    FakeEngine,
    broken,
    dead,
    lines_of,
    run,
)


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
        tmp_path / "without", FakeEngine(fate=lambda call, task, update: dead(task) if task.client == "b" else update)
    )
    assert all("not finite" in line["rejected"]["b"] for line in lines_of(tmp_path / "poisoned"))
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
    assert all(line["rejected"]["c"].startswith("started from weights 0-older") for line in lines_of(tmp_path))


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
        folder / "without", FakeEngine(fate=lambda call, task, update: dead(task) if task.client == "c" else update)
    )
    for name, tensor in without.items():
        np.testing.assert_array_equal(weights[name], tensor)


def test_an_update_of_a_client_without_a_task_is_rejected(tmp_path: Path) -> None:
    run(tmp_path, _Sends(lambda updates: [*updates, dataclasses.replace(updates[0], client="stranger")]))
    assert all(line["rejected"] == {"stranger": "has no task in this round"} for line in lines_of(tmp_path))


def test_a_client_that_answers_twice_does_not_count_at_all(tmp_path: Path) -> None:
    _assert_only_a_and_b_count(tmp_path, _Sends(lambda updates: [*updates, updates[2]]))
    assert all(line["rejected"] == {"c": "sent 2 updates"} for line in lines_of(tmp_path / "odd"))


@pytest.mark.parametrize("examples", [10**12, 10 + ord("c") + 1, 1])
def test_a_client_cannot_choose_its_weight_in_the_mean(examples: int, tmp_path: Path) -> None:
    def boast(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        said = msgspec.structs.replace(update.metadata, examples=examples)
        return dataclasses.replace(update, metadata=said) if task.client == "c" else update

    _assert_only_a_and_b_count(tmp_path, FakeEngine(fate=boast))
    reason = f"says that it has {examples} examples; the fleet gave it 109"
    assert all(line["rejected"] == {"c": reason} for line in lines_of(tmp_path / "odd"))


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
    assert all(line["stopped_early"] == {"c": 0.25} and line["rejected"] == {} for line in lines_of(tmp_path))
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
    assert all(line["rejected"]["c"].startswith("stopped early") for line in lines_of(tmp_path / "odd"))


def test_an_update_that_moved_absurdly_far_is_left_out(tmp_path: Path) -> None:
    def huge(call: int, task: Task, update: ReceivedUpdate) -> Answer:
        if task.client != "a":
            return update
        tensors = {name: tensor * np.float32(1e6) for name, tensor in update.tensors.items()}
        return ReceivedUpdate(client="a", metadata=update.metadata, tensors=tensors)

    run(tmp_path, FakeEngine(fate=huge))
    assert all("parameters moved by" in line["rejected"]["a"] for line in lines_of(tmp_path))


def test_losses_of_rejected_clients_are_not_in_the_mean(tmp_path: Path) -> None:
    class Boasts(FakeEngine):
        def answers(self, task: Task) -> list[Event]:
            (event,) = super().answers(task)
            assert isinstance(event, Updated)
            loss = 1e9 if task.client == "c" else 1.0
            return [dataclasses.replace(event, result=msgspec.structs.replace(event.result, loss_last=loss))]

    run(tmp_path, Boasts(fate=lambda call, task, update: broken(update) if task.client == "c" else update))
    assert [line["loss"] for line in lines_of(tmp_path)] == [1.0] * 6
