"""Interrupted training: kill -9, SIGTERM, and what a checkpoint refuses."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.device_commands import profl_edge, start, wait_for

_STEPS = 600


def _arguments(bundle: Path, output: Path, *more: object) -> list[object]:
    arguments: list[object] = ["train", bundle, "--block", 2, "--data", "digits", "--steps", _STEPS, "--threads", 2]
    return [*arguments, "--lr", 0.02, "--checkpoint-every", 5, "-o", output, "--json", *more]


def _checkpoint(output: Path) -> Path:
    return output.with_name(output.name + ".checkpoint")


def _wait_for_checkpoints(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many were written, of which a few may pass unseen."""
    wait_for(_checkpoint(output), process)
    for _ in range(count):
        seen = _checkpoint(output).stat().st_mtime_ns
        while _checkpoint(output).stat().st_mtime_ns == seen:
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)


@pytest.fixture(scope="module")
def undisturbed(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The update of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("undisturbed") / "update.safetensors"
    assert profl_edge(*_arguments(cnn_bundle, output)).report()["resumed_from"] == 0
    return output.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_random_moments_then_resume_is_bit_equal(
    cnn_bundle: Path, tmp_path: Path, undisturbed: bytes, seed: int
) -> None:
    moments = random.Random(seed)
    output = tmp_path / "update.safetensors"
    for _ in range(3):
        process = start(*_arguments(cnn_bundle, output, "--resume"))
        _wait_for_checkpoints(output, moments.randint(1, 10), process)
        time.sleep(moments.uniform(0.0, 0.01))  # in the middle of a step, or of writing the next one
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    report = profl_edge(*_arguments(cnn_bundle, output, "--resume")).report()
    assert report["steps"] == _STEPS
    assert output.read_bytes() == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["update.safetensors"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("limit", [(), ("--memory-limit", "96MB")])
def test_a_signal_leaves_a_checkpoint_that_continues(
    cnn_bundle: Path, tmp_path: Path, undisturbed: bytes, number: int, status: int, limit: tuple[str, ...]
) -> None:
    output = tmp_path / "update.safetensors"
    process = start(*_arguments(cnn_bundle, output, *limit))
    wait_for(_checkpoint(output), process)
    process.send_signal(number)
    text, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    stopped = json.loads(text)
    assert stopped["interrupted"] is True
    assert 0 < stopped["steps"] < _STEPS
    assert not output.exists()
    continued = profl_edge(*_arguments(cnn_bundle, output, "--resume")).report()
    assert continued["interrupted"] is False
    assert continued["resumed_from"] == stopped["steps"]
    assert continued["loss_first"] == stopped["loss_first"]
    assert output.read_bytes() == undisturbed


def test_a_run_that_sums_gradients_over_micro_batches_continues_as_well(summing_bundle: Path, tmp_path: Path) -> None:
    settings = ("--steps", "200", "--lr", "0.001")
    whole, output = tmp_path / "whole.safetensors", tmp_path / "update.safetensors"
    report = profl_edge(*_arguments(summing_bundle, whole, *settings)).report()
    assert report["loss_last"] < report["loss_first"]
    assert report["measured_peak_bytes"] <= report["predicted_peak_bytes"] + (1 << 19)
    process = start(*_arguments(summing_bundle, output, *settings))
    wait_for(_checkpoint(output), process)
    process.kill()
    process.communicate()
    assert profl_edge(*_arguments(summing_bundle, output, "--resume", *settings)).report()["resumed_from"] > 0
    assert output.read_bytes() == whole.read_bytes()


def _interrupted(bundle: Path, output: Path) -> None:
    process = start(*_arguments(bundle, output))
    wait_for(_checkpoint(output), process)
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--lr", "0.1"), "learning_rate 0.02, this one has 0.1"),
        (("--seed", "5"), "seed 0, this one has 5"),
        (("--threads", "1"), "threads 2, this one has 1"),
        (("--block", "1"), "program grow-block2, this one has grow-block1"),
        (("--data", "mnist-5k"), "data digits, this one has mnist-5k"),
        (("--steps", "1"), "beyond --steps 1"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(
    cnn_bundle: Path, tmp_path: Path, changed: tuple[str, ...], message: str
) -> None:
    output = tmp_path / "update.safetensors"
    _interrupted(cnn_bundle, output)
    before = _checkpoint(output).read_bytes()
    assert message in profl_edge(*_arguments(cnn_bundle, output, "--resume", *changed)).refusal(2)
    assert _checkpoint(output).read_bytes() == before


def test_a_damaged_checkpoint_is_refused(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "update.safetensors"
    _interrupted(cnn_bundle, output)
    raw = _checkpoint(output).read_bytes()
    _checkpoint(output).write_bytes(raw[: len(raw) // 2])
    assert ".checkpoint" in profl_edge(*_arguments(cnn_bundle, output, "--resume")).refusal(2)


def test_without_resume_a_run_starts_again(cnn_bundle: Path, tmp_path: Path, undisturbed: bytes) -> None:
    output = tmp_path / "update.safetensors"
    _interrupted(cnn_bundle, output)
    assert profl_edge(*_arguments(cnn_bundle, output)).report()["resumed_from"] == 0
    assert output.read_bytes() == undisturbed


def test_a_second_process_on_the_same_output_is_refused(cnn_bundle: Path, tmp_path: Path, undisturbed: bytes) -> None:
    output = tmp_path / "update.safetensors"
    process = start(*_arguments(cnn_bundle, output))
    wait_for(_checkpoint(output), process)
    process.send_signal(signal.SIGSTOP)
    try:
        assert "another process is writing it" in profl_edge(*_arguments(cnn_bundle, output)).refusal(2)
    finally:
        process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.read_bytes() == undisturbed
