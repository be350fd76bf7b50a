"""The client of a federation through kills, signals, a link that is down, and a device that must do something else."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_profiles.federation import QUERY_DEVICE, TRAIN_TASK, UPDATE_FILE, DeviceAnswer, DeviceQuestion, TrainAnswer
from tests.support.federation_client import RunningClient, bundle_files, state_of, train_order

_STEPS = 300
_KILLS = 10


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RunningClient]:
    client = RunningClient(tmp_path)
    yield client
    if client.process is not None and client.process.poll() is None:
        client.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def files(cnn_bundle: Path) -> dict[str, Path]:
    return bundle_files(cnn_bundle)


@pytest.fixture(scope="module")
def undisturbed(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The update of a client that nothing interrupted."""
    client = RunningClient(tmp_path_factory.mktemp("undisturbed"))
    client.start()
    task = _train(client, files)
    assert client.mailbox.answer(task, TrainAnswer).result.steps == _STEPS
    client.end()
    return client.mailbox.file(task, UPDATE_FILE).read_bytes()


def _train(client: RunningClient, files: dict[str, Path], /, **changed: Any) -> str:
    return client.mailbox.send(TRAIN_TASK, train_order(files, **{"steps": _STEPS, **changed}), files)


def _is_training(client: RunningClient) -> bool:
    """Whether a checkpoint of the task is there and its training runs."""
    return len(client.children()) > 1 and any((client.state / "task").glob("*.checkpoint"))


def test_random_kills_lose_nothing_and_leave_no_process(
    client: RunningClient, files: dict[str, Path], undisturbed: bytes
) -> None:
    moments = random.Random(7)
    tasks = [_train(client, files)]
    for _ in range(_KILLS):
        process = client.start()
        time.sleep(moments.uniform(0.1, 2.5))
        process.kill()
        process.wait()
        _wait_gone(client)
        if client.mailbox.answered(tasks[-1]):
            tasks.append(_train(client, files, attempt=len(tasks)))
    client.start()
    for task in tasks:
        answer = client.mailbox.answer(task, TrainAnswer)
        assert (answer.result.status, answer.result.steps) == ("ok", _STEPS)
        assert client.mailbox.file(task, UPDATE_FILE).read_bytes() == undisturbed
    client.wait(lambda: (client.state / "task").is_dir() and list((client.state / "task").iterdir()) == [])
    assert client.end() == 130
    assert {path.name for path in client.state.iterdir()} == {"files", "lock", "task", "taken.json"}


def _wait_gone(client: RunningClient) -> None:
    """What the client started ends with it, without a word from anybody."""
    end = time.monotonic() + 5
    while client.processes():
        assert time.monotonic() < end, client.processes()
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_with_a_checkpoint_that_the_next_start_continues(
    client: RunningClient, files: dict[str, Path], undisturbed: bytes, number: int
) -> None:
    client.start()
    task = _train(client, files)
    client.wait(lambda: _is_training(client))
    assert client.end(number) == 130
    assert client.errors == ""
    assert client.processes() == []
    assert any((client.state / "task").glob("*.checkpoint"))
    assert (client.mailbox.folder / "log").read_text().split()[-1] == "deactivated"
    client.start()
    client.mailbox.wait(task)
    assert client.mailbox.file(task, UPDATE_FILE).read_bytes() == undisturbed
    assert "continues with train.task" in client.log("continues")[0]["text"]


def test_a_finished_update_is_sent_by_the_next_start(
    client: RunningClient, files: dict[str, Path], undisturbed: bytes
) -> None:
    client.start()
    task = _train(client, files)
    client.wait(lambda: _is_training(client))
    client.mailbox.set_down(True)  # the training needs no link
    client.wait(lambda: (client.state / "answer.json").exists())
    client.end(signal.SIGKILL)
    client.mailbox.set_down(False)
    client.start()
    client.mailbox.wait(task)
    assert client.mailbox.file(task, UPDATE_FILE).read_bytes() == undisturbed
    assert [line["kind"] for line in client.log("work")] == [TRAIN_TASK]


def test_an_order_that_expired_meanwhile_is_forgotten(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    client.mailbox.send(TRAIN_TASK, train_order(files, steps=50_000), files, ttl=3.0)
    client.wait(lambda: len(client.children()) > 1)
    client.end(signal.SIGKILL)
    time.sleep(3)
    client.start()
    client.wait(lambda: bool(client.log("gone")))
    client.wait(lambda: not (client.state / "pending.json").exists())


def test_questions_are_answered_beside_a_training(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    task = _train(client, files, steps=50_000)
    client.wait(lambda: len(client.children()) > 1)
    device = client.mailbox.answer(client.mailbox.send(QUERY_DEVICE, DeviceQuestion(release="1")), DeviceAnswer)
    assert device.busy is not None and device.busy.startswith("trains grow-units0-0")
    assert device.took == (task,)
    other = client.mailbox.answer(_train(client, files, run="other"), TrainAnswer)
    assert other.result.status == "declined: it is at another task"
    newer = _train(client, files, attempt=1, steps=5)
    assert client.mailbox.answer(newer, TrainAnswer).result.status == "ok"
    assert client.mailbox.answer(task, TrainAnswer).result.status == "a newer task of the run has come"


def test_a_training_beyond_its_time_is_ended(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    answer = client.mailbox.answer(_train(client, files, steps=50_000, timeout_seconds=2.0), TrainAnswer)
    assert answer.result.status == "no answer within 2 s"
    assert client.children() == []


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _pressure(root: Path, percent: float) -> None:
    _write(root, "proc/pressure/memory", f"some avg10={percent:.2f} avg60=0\nfull avg10={percent:.2f} avg60=0\n")


def test_a_training_pauses_while_memory_is_scarce(
    client: RunningClient, files: dict[str, Path], tmp_path: Path, undisturbed: bytes
) -> None:
    client.root = tmp_path / "system"
    _pressure(client.root, 0)
    client.start()
    task = _train(client, files)
    client.wait(lambda: _is_training(client))
    _pressure(client.root, 60)
    client.wait(lambda: {state_of(child) for child in client.children()} == {"T"})
    paused = client.children()
    question = client.mailbox.send(QUERY_DEVICE, DeviceQuestion(release="1"))
    assert client.mailbox.answer(question, DeviceAnswer).busy == "grow-units0-0: waits (memory is scarce)"
    assert client.children() == paused
    _pressure(client.root, 0)
    client.mailbox.wait(task)
    assert client.mailbox.file(task, UPDATE_FILE).read_bytes() == undisturbed


def test_a_training_waits_with_a_checkpoint_while_it_is_not_allowed(
    client: RunningClient, files: dict[str, Path], tmp_path: Path, undisturbed: bytes
) -> None:
    client.root, client.more = tmp_path / "system", {"when": ("charging",)}
    battery = "sys/class/power_supply/BAT0"
    _write(client.root, f"{battery}/type", "Battery\n")
    _write(client.root, f"{battery}/status", "Charging\n")
    client.start()
    task = _train(client, files)
    client.wait(lambda: _is_training(client))
    _write(client.root, f"{battery}/status", "Discharging\n")
    client.wait(lambda: client.children() == [])
    assert client.log("waits")[0]["why"] == "not charging"
    client.end(signal.SIGKILL)
    client.start()  # which may not train either: the task that was taken waits
    client.wait(lambda: len(client.log("waits")) == 2)
    assert not client.mailbox.answered(task)
    question = client.mailbox.send(QUERY_DEVICE, DeviceQuestion(release="1"))
    assert client.mailbox.answer(question, DeviceAnswer).busy == "grow-units0-0: waits (not charging)"
    _write(client.root, f"{battery}/status", "Charging\n")
    client.mailbox.wait(task)
    assert client.mailbox.file(task, UPDATE_FILE).read_bytes() == undisturbed


def test_a_training_that_is_not_allowed_until_its_deadline_is_declined(
    client: RunningClient, files: dict[str, Path], tmp_path: Path
) -> None:
    client.root, client.more = tmp_path / "system", {"when": ("cool",)}
    zone = "sys/class/thermal/thermal_zone0/temp"
    _write(client.root, zone, "40000\n")
    client.start()
    task = _train(client, files, steps=50_000, timeout_seconds=6.0)
    client.wait(lambda: len(client.children()) > 1)
    _write(client.root, zone, "80000\n")
    answer = client.mailbox.answer(task, TrainAnswer)
    assert answer.result.status == "not allowed to train until the deadline: 80 °C warm"
    assert answer.update is None
