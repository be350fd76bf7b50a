"""What can go wrong while a block is trained: one line, the right status, and what was good is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from edge_runtime.device.data.npz_writing import write_npz
from edge_runtime.device.limits.processes import run_limited
from tests.support.device_commands import Done, profl_edge, start, wait_for

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(cnn_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to change."""
    return Path(shutil.copytree(cnn_bundle, tmp_path / "copy"))


def _rewrite(bundle: Path, name: str, old: bytes, new: bytes) -> None:
    """Replace bytes of a file and state its new digest, as an exporter of another release would."""
    path = bundle / name
    raw = path.read_bytes()
    assert raw.count(old) == 1 and len(old) == len(new)
    path.write_bytes(raw.replace(old, new))
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    entry = next(entry for entry in manifest["files"] if entry["path"] == name)
    entry["sha256"] = sha256(path.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _limited(command: list[str], tmp_path: Path, limit_bytes: int) -> Done:
    """Run with a data limit, which makes requests fail instead of killing."""
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        outcome = run_limited(
            command,
            limit_bytes=limit_bytes,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdout=out,
            stderr=err,
            allow_cgroup=False,
        )
    return Done(status=outcome.returncode, output=(tmp_path / "out").read_text(), errors=(tmp_path / "err").read_text())


@pytest.mark.parametrize("command", [["train", "--data", "digits"], ["bench"]])
def test_an_arena_that_the_limit_does_not_give_is_one_line(copy: Path, tmp_path: Path, command: list[str]) -> None:
    arena = read_json(copy / "manifest.json", Manifest).program("grow-block1").memory.arena_bytes
    _rewrite(copy, "programs/grow-block1.pte", arena.to_bytes(8, "little"), (8 << 30).to_bytes(8, "little"))
    arguments = [sys.executable, "-m", "edge_runtime.device", command[0], str(copy), "--block", "1", *command[1:]]
    line = _limited(arguments, tmp_path, 512 << 20).refusal(1)
    assert f"grow-block1: {copy}/programs/grow-block1.pte: no memory for an arena of {8 << 30} bytes" in line


def test_an_operator_that_this_release_does_not_have_is_named(copy: Path) -> None:
    _rewrite(copy, "programs/grow-block1.pte", b"profl::cross_entropy", b"profl::cross_antropy")
    line = profl_edge("bench", copy, "--block", 1, "--json").refusal(1)
    assert "grow-block1.pte: needs the operator profl::cross_antropy.out, which this release does not have" in line


def test_a_program_of_another_format_is_named(copy: Path) -> None:
    _rewrite(copy, "programs/grow-block1.pte", b"ET12", b"ET99")
    line = profl_edge("bench", copy, "--block", 1, "--json").refusal(1)
    assert "grow-block1.pte: is not a program this runtime runs" in line


def test_a_data_file_that_ends_early_while_training_ends_the_run_and_keeps_the_checkpoint(
    cnn_bundle: Path, tmp_path: Path
) -> None:
    data, output = tmp_path / "part.npz", tmp_path / "update.safetensors"
    write_npz(data, np.zeros((4000, 28, 28), np.uint8), np.arange(4000) % 10)
    process = start(
        *("train", cnn_bundle, "--block", 1, "--data", f"npz:{data}", "--steps", 100000, "--lr", 0.001),
        *("--checkpoint-every", 5, "-o", output, "--json"),
    )
    checkpoint = output.with_name(output.name + ".checkpoint")
    wait_for(checkpoint, process)
    os.truncate(data, 1000 * 28 * 28)
    text, errors = process.communicate(timeout=60)
    line = Done(status=process.returncode, output=text, errors=errors).refusal(2)
    assert "part.npz: ends inside image" in line
    assert checkpoint.exists() and not output.exists()


def _diverging(bundle: Path, folder: Path) -> list[object]:
    """Options with which the first step's loss is a number, and what it makes of the weights is none."""
    weights = load_file(bundle / "weights" / "initial.safetensors")
    steep = {name: 1e4 * tensor for name, tensor in weights.items() if name.startswith("fc.")}
    save_file(steep, folder / "steep.safetensors")
    return ["--lr", "3.4e38", "--weights", folder / "steep.safetensors"]


def test_a_first_loss_that_is_no_number_is_not_laid_to_the_learning_rate(cnn_bundle: Path, tmp_path: Path) -> None:
    weights = load_file(cnn_bundle / "weights" / "initial.safetensors")
    head = {name: np.full_like(value, np.nan) for name, value in weights.items() if name.startswith("fc.")}
    save_file(head, tmp_path / "nan.safetensors")
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--weights", tmp_path / "nan.safetensors"]
    line = profl_edge(*arguments, "--json").refusal(1)
    assert "step 1 of grow-block1: the loss is nan; the data or the weights hold NaN or too large values" in line
    assert "--lr" not in line


def test_an_update_that_is_no_number_is_not_written(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "update.safetensors"
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--steps", 1, "-o", output, "--json"]
    line = profl_edge(*arguments, *_diverging(cnn_bundle, tmp_path)).refusal(3)
    assert "step 1 of grow-block1: tensor '" in line
    assert "has a value that is not finite; try a smaller --lr" in line
    assert list(output.parent.iterdir()) == []


def test_a_checkpoint_that_is_no_number_does_not_replace_a_good_one(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "update.safetensors"
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--checkpoint-every", 1, "-o", output, "--json"]
    process = start(*arguments, "--steps", 100000, "--lr", 0.0)
    checkpoint = output.with_name(output.name + ".checkpoint")
    wait_for(checkpoint, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    good = checkpoint.read_bytes()
    line = profl_edge(*arguments, "--steps", 100000, *_diverging(cnn_bundle, tmp_path)).refusal(3)
    assert "step 1 of grow-block1" in line and "the last checkpoint is kept" in line
    assert checkpoint.read_bytes() == good


def _train_with_file_size(bundle: Path, data: Path, output: Path, blocks: int) -> Done:
    """No file of the process may grow beyond `blocks` of 1024 bytes: a write fails as on a full disk."""
    arguments = [sys.executable, "-m", "edge_runtime.device", "train", str(bundle), "--block", "3"]
    arguments += ["--data", f"npz:{data}", "--steps", "2", "--lr", "0.01", "-o", str(output)]
    done = subprocess.run(
        ["/bin/bash", "-c", 'ulimit -f "$0" && exec "$@"', str(blocks), *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(status=done.returncode, output=done.stdout, errors=done.stderr)


def test_an_update_that_the_disk_does_not_take_is_one_line_and_leaves_nothing(cnn_bundle: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "part.npz", tmp_path / "out" / "update.safetensors"
    write_npz(data, np.zeros((16, 28, 28), np.uint8), np.arange(16) % 10)
    assert _train_with_file_size(cnn_bundle, data, output, 4096).status == 0
    before = output.read_bytes()
    done = _train_with_file_size(cnn_bundle, data, output, len(before) // 1024)
    assert str(output) in done.refusal(1)
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system to fill cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(folder: Path) -> None:
    with suppress(OSError), (folder / "ballast").open("ab", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def test_a_disk_that_fills_up_is_one_line_and_keeps_the_checkpoint(cnn_bundle: Path, small_disk: Path) -> None:
    output = small_disk / "update.safetensors"
    arguments = ["train", cnn_bundle, "--block", 3, "--data", "digits", "--steps", 100000, "--lr", 0.01, "-o", output]
    process = start(*arguments, "--checkpoint-every", 10, "--json")
    wait_for(output.with_name(output.name + ".checkpoint"), process)
    while process.poll() is None:
        _fill(small_disk)
    text, errors = process.communicate(timeout=60)
    line = Done(status=process.returncode, output=text, errors=errors).refusal(1)
    assert "No space left on device" in line and str(output) in line
    left = sorted(path.name for path in small_disk.iterdir())
    assert left == ["ballast", "update.safetensors.checkpoint"]


def test_a_disk_without_room_is_refused_before_the_first_step(cnn_bundle: Path, small_disk: Path) -> None:
    output = small_disk / "folder" / "update.safetensors"
    arguments = ["train", cnn_bundle, "--block", 3, "--data", "digits", "--steps", 50, "-o", output, "--json"]
    _fill(small_disk)
    os.truncate(small_disk / "ballast", (small_disk / "ballast").stat().st_size - (64 << 10))
    line = profl_edge(*arguments).refusal(1)
    assert f"-o {output}: the update and its checkpoints take 0." in line
    assert f"MB, 0.0 MB are free in {small_disk}" in line and line.endswith("choose another place")
