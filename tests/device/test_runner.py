"""`profl-train`, the runner without Python: what `profl-edge train` writes, to the byte."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")

from safetensors.numpy import load_file, save_file

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from tests.support.device_commands import profl_edge, wait_for
from tests.support.device_commands import start as start_edge
from tests.support.runner import Ran, built_runner, run, write_idx

# All kernels are compiled where they were not: on a machine that does other things, past the usual limit.
pytestmark = pytest.mark.timeout(1800)

LOSSES = ("loss_first", "loss_last", "loss_smoothed")


@pytest.fixture(scope="module")
def runner() -> Path:
    return built_runner()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"idx:{write_idx(tmp_path_factory.mktemp('data') / 'idx')}"


def _both(runner: Path, folder: Path, *arguments: object) -> tuple[Ran, bytes, bytes]:
    """What the runner printed, its update, and the update of the same command with Python."""
    ours, theirs = folder / "runner.safetensors", folder / "python.safetensors"
    ran = run(runner, *arguments, "--json", "-o", ours)
    python = profl_edge("train", *arguments, "--json", "-o", theirs).report()
    report = ran.report()
    assert {name: report[name] for name in LOSSES} == {name: python[name] for name in LOSSES}
    assert report["steps"] == python["steps"] and report["instruction_set"] == python["instruction_set"]
    assert set(report) <= set(python)
    return ran, ours.read_bytes(), theirs.read_bytes()


def test_the_only_training_step_of_a_bundle_needs_no_name(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    made = profl_edge("export", "--model", "cnn", "--batch", 8, "--block", 1, "--no-verify", "-o", bundle)
    assert made.status == 0, made.errors
    arguments = ("--data", data, "--steps", 2, "--threads", 1)
    _, ours, theirs = _both(runner, tmp_path, bundle, *arguments)
    assert ours == theirs
    for given in ((bundle, "--purpose", "grow"), (cnn_bundle,)):
        line = run(runner, *given, *arguments).refusal()
        assert line == "nothing says what to train; give --block or --work"
        assert profl_edge("train", *given, *arguments).refusal(2) == f"profl-edge: error: {line}"


@pytest.mark.parametrize("more", [(), ("--augment", "crop-flip", "--seed", -3), ("--purpose", "distill")])
def test_the_update_is_that_of_the_worker(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, more: tuple[object, ...]
) -> None:
    arguments = (cnn_bundle, "--block", 2, "--data", data, "--steps", 14, "--threads", 2, *more)
    _, ours, theirs = _both(runner, tmp_path, *arguments)
    assert ours == theirs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["python.safetensors", "runner.safetensors"]


def test_adamw_with_summed_micro_batches_is_that_of_the_worker(
    runner: Path, summing_bundle: Path, data: str, tmp_path: Path
) -> None:
    arguments = (summing_bundle, "--block", 2, "--data", data, "--epochs", 1.5, "--threads", 2, "--initial-prefix")
    _, ours, theirs = _both(runner, tmp_path, *arguments)
    assert ours == theirs


@pytest.mark.parametrize(
    ("rate", "factor", "status", "reason"),
    [
        (1e4, 1.0, 3, "try a smaller --lr"),
        (3e38, 1e4, 3, "has a value that is not finite; try a smaller --lr"),
        (0.01, np.nan, 1, "the data or the weights hold NaN or too large values; correct them"),
    ],
)
def test_a_training_that_diverges_ends_as_the_workers_does(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, rate: float, factor: float, status: int, reason: str
) -> None:
    weights = load_file(cnn_bundle / "weights" / "initial.safetensors")
    save_file({n: tensor * np.float32(factor) for n, tensor in weights.items() if n.startswith("fc.")}, tmp_path / "w")
    # With a step more, weights that are no numbers are seen in a loss.
    steps = 1 if factor == 1e4 else 2
    output = tmp_path / "update"
    arguments = (cnn_bundle, "--block", 1, "--data", data, "--steps", steps, "--lr", rate, "--weights", tmp_path / "w")
    line = run(runner, *arguments, "-o", output).refusal(status)
    assert line.endswith(reason)
    assert profl_edge("train", *arguments, "-o", output).refusal(status) == f"profl-edge: error: {line}"
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_arrays_of_numpy_are_read_as_python_reads_them(runner: Path, cnn_bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 10, 24)
    images = {"pixels": random.integers(0, 256, (24, 3, 9, 8), np.uint8)}
    images["inputs"] = random.standard_normal((24, 3, 32, 32)).astype(np.float32)
    for name, array in images.items():
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "data.npz", labels=labels, **{"images" if name == "pixels" else name: array})
        spec = f"npz:{folder / 'data.npz'}"
        _, ours, theirs = _both(runner, folder, cnn_bundle, "--block", 1, "--data", spec, "--threads", 1)
        assert ours == theirs


def test_kill_9_then_resume_is_bit_equal_also_where_python_began(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path
) -> None:
    arguments = ["--block", 2, "--data", data, "--threads", 2, "--checkpoint-every", 5, "--steps", 1500]
    undisturbed = tmp_path / "undisturbed.safetensors"
    assert run(runner, cnn_bundle, *arguments, "-o", undisturbed).status == 0
    output = tmp_path / "update.safetensors"
    checkpoint = tmp_path / "update.safetensors.checkpoint"
    python = start_edge("train", cnn_bundle, *arguments, "-o", output)
    wait_for(checkpoint, python)
    python.kill()
    python.communicate()
    before = _inode(checkpoint)
    command = [str(runner), str(cnn_bundle), *map(str, arguments), "--resume", "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and _inode(checkpoint) in (None, before):
            time.sleep(0.001)
        process.kill()
    ran = run(runner, cnn_bundle, *arguments, "--resume", "--json", "-o", output)
    assert ran.status == 0, ran.errors
    assert output.read_bytes() == undisturbed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["undisturbed.safetensors", "update.safetensors"]


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_that_python_continues(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, number: int, status: int
) -> None:
    output = tmp_path / "update.safetensors"
    arguments = ["--block", 1, "--data", data, "--threads", 1, "--lr", "1e-5", "--checkpoint-every", 5]
    command = [str(runner), str(cnn_bundle), *map(str, arguments), "--steps", "1000000", "-o", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "update.safetensors.checkpoint", process)
    process.send_signal(number)
    text, _ = process.communicate()
    assert process.returncode == status
    assert "interrupted" in text
    done = int(text.partition(": ")[2].partition(" steps")[0])
    more = profl_edge("train", cnn_bundle, *arguments, "--steps", done + 1, "--resume", "--json", "-o", output)
    assert more.report()["resumed_from"] == done


def test_frozen_weights_in_bfloat16_are_those_of_the_worker(runner: Path, tmp_path: Path) -> None:
    bundle, random = tmp_path / "bundle", np.random.default_rng(5)
    made = profl_edge(
        *("export", "--model", "text_decoder", "--width", 96, "--input", 8, "--classes", 5, "--batch", 8),
        *("--train-units", "5-8", "--frozen-dtype", "bfloat16", "--no-verify", "-o", bundle),
    )
    assert made.status == 0, made.errors
    frozen = read_json(bundle / "manifest.json", Manifest).programs[0].inputs
    assert {value.dtype for value in frozen if value.role == "frozen"} >= {"bfloat16"}
    np.savez(tmp_path / "d.npz", inputs=random.integers(0, 5, (32, 8)), labels=random.integers(0, 5, 32))
    arguments = (bundle, "--data", f"npz:{tmp_path / 'd.npz'}", "--steps", 5, "--threads", 2)
    _, ours, theirs = _both(runner, tmp_path, *arguments)
    assert ours == theirs
