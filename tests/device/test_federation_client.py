"""The client of a federation as a process, with a server in a folder: tasks, limits, and what it does not take."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_profiles.federation import (
    QUERY_DEVICE,
    QUERY_PROFILE,
    TRAIN_TASK,
    UPDATE_FILE,
    DeviceAnswer,
    DeviceQuestion,
    ProfileAnswer,
    ProfileOrder,
    SentFile,
    TrainAnswer,
)
from tests.support.federation_client import MEGABYTE, RunningClient, bundle_files, memory_of, sent_files, train_order

_IDLE_BYTES = 30 * MEGABYTE


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RunningClient]:
    client = RunningClient(tmp_path)
    yield client
    if client.process is not None and client.process.poll() is None:
        client.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def files(cnn_bundle: Path) -> dict[str, Path]:
    return bundle_files(cnn_bundle)


def _train(client: RunningClient, files: dict[str, Path], /, **changed: Any) -> str:
    return client.mailbox.send(TRAIN_TASK, train_order(files, **changed), files)


def test_client_and_training_stay_below_the_limit_together(client: RunningClient, files: dict[str, Path]) -> None:
    client.limit_mb = 96
    process = client.start()
    question = client.mailbox.send(QUERY_DEVICE, DeviceQuestion(release="1"))
    device = client.mailbox.answer(question, DeviceAnswer)
    assert memory_of(process.pid)["VmHWM"] <= _IDLE_BYTES
    assert memory_of(process.pid)["VmHWM"] + device.budget_bytes < client.limit_mb * MEGABYTE
    assert (device.name, device.examples, device.profile, device.busy) == ("bench", 1438, None, None)
    libraries = Path(f"/proc/{process.pid}/maps").read_text()
    assert not any(name in libraries for name in ("numpy", "torch", "executorch", "_rust.abi3"))
    task = _train(client, files, promise_bytes=device.budget_bytes, work="grow-units1-1")
    answer = client.mailbox.answer(task, TrainAnswer)
    assert answer.result.status == "ok"
    assert answer.result.limit_kind in ("cgroup-v1", "cgroup-v2", "rlimit")
    assert answer.transport_peak_bytes is not None
    assert answer.transport_peak_bytes <= _IDLE_BYTES
    assert answer.update == SentFile.of(client.mailbox.file(task, UPDATE_FILE))
    assert client.end() == 130
    assert client.processes() == []
    sent = client.log("sent")
    assert [line["what"] for line in sent] == [
        "name, budget, number of examples, no profile",
        "update of grow-units1-1",
    ]
    assert sent[1]["bytes"] > answer.update.bytes
    assert (client.mailbox.folder / "log").read_text().split() == ["activated", "deactivated"]


def test_what_one_task_brought_is_there_for_the_next(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    first = client.mailbox.answer(_train(client, files, steps=3), TrainAnswer)
    assert first.result.bytes_down == sum({path.read_bytes(): path.stat().st_size for path in files.values()}.values())
    client.end()
    client.start()
    fetched = client.mailbox.fetched
    assert len(fetched) == len(set(fetched))
    second = client.mailbox.answer(_train(client, files, attempt=1, steps=3), TrainAnswer)
    assert (second.result.status, second.result.bytes_down) == ("ok", 0)
    assert client.mailbox.fetched == fetched


def test_a_device_is_measured_once_and_then_says_what_it_can(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    bundle = {name: path for name, path in files.items() if name.startswith("bundle/")}
    order = ProfileOrder(run="run", files=sent_files(bundle))
    answer = client.mailbox.answer(client.mailbox.send(QUERY_PROFILE, order, bundle), ProfileAnswer)
    assert answer.status == "ok"
    assert answer.profile is not None
    assert all(cost.fits for cost in answer.profile.costs)
    assert answer.profile.device.limit_bytes is not None
    question = client.mailbox.send(QUERY_DEVICE, DeviceQuestion(release="1"))
    device = client.mailbox.answer(question, DeviceAnswer)
    assert device.profile == answer.profile
    assert answer.profile.device.limit_bytes == device.budget_bytes


@pytest.mark.parametrize(
    ("changed", "more", "why"),
    [
        ({"promise_bytes": 200 * MEGABYTE}, {}, "the task needs 200.0 MB, this device has 1"),
        ({"attempt": 3}, {}, "attempt 3 is older than attempt 4, which was taken before"),
        ({}, {"max_download_bytes": 1000}, "is more than the 0.0 MB allowed"),
        ({}, {"quiet_hours": "00:00-24:00"}, "may not train now: quiet hours"),
        ({"client": "other"}, {"invited": True}, "the task is for other, this device is bench"),
        ({"work": "whole"}, {}, "no device trains whole"),
    ],
)
def test_what_a_device_does_not_take_is_answered_with_the_reason(
    client: RunningClient, files: dict[str, Path], changed: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    client.more = more
    (client.state / "taken.json").write_text('{"attempts": {"run": 4}}')
    client.start()
    answer = client.mailbox.answer(_train(client, files, **{"attempt": 4, **changed}), TrainAnswer)
    assert why in answer.result.status
    assert answer.update is None
    assert client.end() == 130


def test_a_full_disk_is_a_reason_and_leaves_nothing_half_written(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    full = client.mailbox.folder / "full"
    full.touch()
    answer = client.mailbox.answer(_train(client, files, steps=3), TrainAnswer)
    assert answer.result.status == "declined: the files of the task cannot be kept: No space left on device"
    client.wait(lambda: not (client.state / "pending.json").exists())
    assert list((client.state / "files").iterdir()) == []
    full.unlink()
    assert client.mailbox.answer(_train(client, files, attempt=1, steps=3), TrainAnswer).result.status == "ok"


def test_files_that_are_not_the_order_s_are_not_used(client: RunningClient, files: dict[str, Path]) -> None:
    client.start()
    swapped = {**files, "bundle/programs/grow-block1.pte": files["bundle/programs/eval-block1.pte"]}
    task = client.mailbox.send(TRAIN_TASK, train_order(files, steps=3), swapped)
    assert "another file" in client.mailbox.answer(task, TrainAnswer).result.status


def test_messages_that_are_none_are_refused_and_the_next_is_served(
    client: RunningClient, files: dict[str, Path]
) -> None:
    client.start()
    for kind, raw in ((TRAIN_TASK, b"{}"), (QUERY_DEVICE, b"\xff"), ("train.other", b"{}")):
        assert "order" in client.mailbox.refusal(client.mailbox.send(kind, raw))
    assert client.mailbox.answer(_train(client, files, steps=3), TrainAnswer).result.status == "ok"


def test_a_second_client_with_the_same_state_is_refused(client: RunningClient) -> None:
    process = client.start()
    client.wait(lambda: bool(client.log("joined")))
    second = client.start()
    assert second.wait(30) == 2
    assert "another client runs with it" in client.errors
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130


def test_a_revoked_key_ends_the_client_and_its_training_with_one_line(
    client: RunningClient, files: dict[str, Path]
) -> None:
    process = client.start()
    _train(client, files, steps=50_000)
    client.wait(lambda: len(client.children()) > 1)
    client.mailbox.revoke()
    assert process.wait(60) == 1
    assert client.errors.splitlines() == ["profl-edge: error: the key was revoked"]
    assert client.processes() == []


def test_a_client_that_is_to_train_once_ends_then(client: RunningClient, files: dict[str, Path]) -> None:
    client.once = True
    process = client.start()
    assert client.mailbox.answer(_train(client, files, steps=3), TrainAnswer).result.status == "ok"
    assert process.wait(30) == 0


def test_data_that_cannot_be_read_are_said_at_the_start(client: RunningClient) -> None:
    client.data = "npz:absent.npz"
    assert client.start().wait(30) == 2
    assert len(client.errors.splitlines()) == 1
    assert "absent.npz" in client.errors
    assert not (client.mailbox.folder / "log").exists()
