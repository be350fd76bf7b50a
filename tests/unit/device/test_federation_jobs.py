"""Trainings of a federation without their processes: when they are paused, ended, continued and answered."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_profiles.errors import FormatError
from device_profiles.federation import (
    QUERY_DEVICE,
    TRAIN_TASK,
    DeviceAnswer,
    DeviceQuestion,
    SentFile,
    TrainAnswer,
)
from edge_runtime.device.federation import training
from edge_runtime.device.federation.answers import Answered
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.handling import handle
from edge_runtime.device.federation.memory import MARGIN_BYTES, STEP_BYTES, reserved_bytes
from edge_runtime.device.federation.state import Pending, StateFolder
from edge_runtime.device.federation.train_command import steps_between
from edge_runtime.device.federation.training import TrainJob
from edge_runtime.device.fleet_api.incoming import Incoming
from edge_runtime.device.fleet_api.keys import NodeKey, ServerKey
from tests.support.federation_client import MEGABYTE, train_order
from tests.support.federation_device import REPORT, FakeChild, fake_device


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    FakeChild.made = []
    monkeypatch.setattr(training, "Child", FakeChild)
    return fake_device(tmp_path)


def _job(device: Device, **changed: Any) -> TrainJob:
    order = train_order({}, weights=(), threads=4, **changed)
    return TrainJob(device, order, bytes_down=11, seconds=600)


def _answer(answered: Answered | None) -> TrainAnswer:
    assert answered is not None
    return msgspec.json.decode(answered.document, type=TrainAnswer)


def _press(device: Device, root: Path, percent: float) -> None:
    path = root / "proc/pressure/memory"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"some avg10={percent:.2f} avg60=0\nfull avg10={percent:.2f} avg60=0\n")


def test_a_training_has_the_budget_as_its_limit_and_answers_with_its_update(device: Device) -> None:
    job = _job(device)
    assert job.poll() is None
    (child,) = FakeChild.made
    assert child.limit_bytes == 100 * MEGABYTE
    assert child.command[child.command.index("--threads") + 1] == "2"
    assert "--resume" in child.command
    assert device.use.child is child
    child.finish()
    answer = _answer(job.poll())
    assert (answer.result.status, answer.result.steps, answer.result.examples) == ("ok", 7, 30)
    assert (answer.result.bytes_down, answer.result.bytes_up) == (11, 6)
    assert answer.update == SentFile.of(device.state.task / "update.safetensors")
    assert answer.transport_peak_bytes == 27 * MEGABYTE
    assert device.use.child is None


def test_pressure_that_lasts_ends_a_training_which_continues_when_it_is_over(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PRESSURE_SECONDS", 0.0)
    job = _job(device)
    job.poll()
    _press(device, tmp_path / "root", 50)
    job.poll()
    first = FakeChild.made[0]
    assert first.calls == ["pause"]
    job.poll()
    assert first.calls == ["pause", "pause", "stop"]
    first.over = True
    for _ in range(3):
        assert job.poll() is None
    assert len(FakeChild.made) == 1
    assert job.doing == "grow-units0-0: waits (memory is scarce)"
    _press(device, tmp_path / "root", 0)
    assert job.poll() is None
    assert len(FakeChild.made) == 2
    FakeChild.made[1].finish()
    assert _answer(job.poll()).result.status == "ok"


def test_a_checkpoint_that_no_longer_fits_is_given_up_once(device: Device) -> None:
    job = _job(device)
    job.poll()
    checkpoint = device.state.task / "update.safetensors.checkpoint"
    checkpoint.write_bytes(b"")
    FakeChild.made[0].over, FakeChild.made[0].returncode, FakeChild.made[0].words = True, 2, "another release"
    assert job.poll() is None
    assert not checkpoint.exists()
    FakeChild.made[1].over, FakeChild.made[1].returncode, FakeChild.made[1].words = True, 2, "no such data"
    answer = _answer(job.poll())
    assert (answer.result.status, answer.update) == ("no such data", None)


def test_a_training_that_diverged_says_so_and_is_not_begun_again(device: Device) -> None:
    job = _job(device)
    job.poll()
    (device.state.task / "update.safetensors.checkpoint").write_bytes(b"")
    FakeChild.made[0].over, FakeChild.made[0].returncode, FakeChild.made[0].words = True, 3, "step 7: the loss is inf"
    answer = _answer(job.poll())
    assert (answer.result.status, answer.update) == ("diverged: step 7: the loss is inf", None)
    assert len(FakeChild.made) == 1


def test_a_training_that_had_finished_is_not_begun_again(device: Device) -> None:
    (device.state.task / "report.json").write_text(json.dumps(REPORT))
    (device.state.task / "update.safetensors").write_bytes(b"update")
    assert _answer(_job(device).poll()).result.steps == 7
    assert FakeChild.made == []


def test_a_report_without_its_end_does_not_count(device: Device) -> None:
    (device.state.task / "report.json").write_text(json.dumps(REPORT)[:-9])
    (device.state.task / "update.safetensors").write_bytes(b"update")
    assert _job(device).poll() is None
    assert len(FakeChild.made) == 1


def test_a_budget_that_has_shrunk_ends_the_task_with_the_reason(device: Device) -> None:
    job = _job(replace(device, budget=lambda: 10 * MEGABYTE))
    assert _answer(job.poll()).result.status == "the task needs 40.0 MB, this device has 10.0 MB for it now"


def test_handlers_need_no_link(device: Device) -> None:
    question = msgspec.json.encode(DeviceQuestion(release="1"))
    fetched: list[str] = []
    answered = handle(device, QUERY_DEVICE, question, None, lambda name, path, sent: fetched.append(name), seconds=5)
    answer = msgspec.json.decode(answered.document, type=DeviceAnswer)
    assert (answer.name, answer.budget_bytes, answer.examples) == ("bench", 100 * MEGABYTE, 30)
    order = msgspec.json.encode(train_order({}, weights=()))
    with pytest.raises(FormatError, match=r"bundle/manifest\.json is missing"):
        handle(device, TRAIN_TASK, order, None, lambda name, path, sent: fetched.append(name), seconds=5)
    assert fetched == []


def test_what_the_server_did_not_sign_is_no_order(device: Device, tmp_path: Path) -> None:
    key = NodeKey.create(tmp_path / "server.key")
    signed = replace(device, server_key=ServerKey(key.public_pem))
    question = msgspec.json.encode(DeviceQuestion(release="1"))

    def ask(signature: bytes | None, raw: bytes = question) -> Answered:
        return handle(signed, QUERY_DEVICE, raw, signature, lambda name, path, sent: None, seconds=5)

    good = key.sign(question)
    assert "budget" in ask(good).what
    for signature, raw in ((None, question), (b"", question), (good[:-1], question), (good, question + b" ")):
        with pytest.raises(FormatError, match="is not signed by the server"):
            ask(signature, raw)


def test_what_is_counted_for_the_client_is_above_it_and_changes_seldom() -> None:
    sizes = [size * 1024 for size in range(20_000, 40_000, 37)]
    assert all(0 <= reserved_bytes(size) - MARGIN_BYTES - size < STEP_BYTES for size in sizes)
    assert reserved_bytes(int(27.5 * MEGABYTE)) == reserved_bytes(int(28.9 * MEGABYTE)) == 30 * MEGABYTE


def test_without_a_profile_checkpoints_have_a_usual_distance() -> None:
    assert steps_between("grow-units0-0", None) == 25


def test_a_training_says_how_long_it_will_still_take(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "usual_seconds", lambda *_, **__: 1000.0)
    job = _job(device)
    job.poll()
    assert re.fullmatch(r"trains grow-units0-0, \d+ s, about \d+ s left", job.doing)


def test_a_training_that_was_slowed_down_is_told_in_the_journal(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job = _job(device)
    job.poll()
    FakeChild.made[0].finish(slowed_down=True)
    assert _answer(job.poll()).result.status == "ok"
    assert "training was slow: the processor lowered its clock" in capsys.readouterr().out


def test_the_messages_that_were_taken_last_are_known_after_they_were_answered(device: Device) -> None:
    state = device.state
    assert state.took() == ()
    for number in range(6):
        state.begin(
            Pending(
                incoming=Incoming(
                    run_id=1, message_id=str(number), type=TRAIN_TASK, created_at=0.0, ttl=1.0, sender=1, node=2
                ),
                received=0.0,
            )
        )
        state.take("run", number)
        state.finish()
    assert state.took() == ("2", "3", "4", "5") and state.newest("run") == 5
    assert StateFolder(state.path).took() == state.took()
