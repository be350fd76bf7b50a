"""`--weights` of `train` and `eval`: laid in order, and whole; and what a run says of itself."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from device_profiles.optimizers import OPTIMIZERS
from device_profiles.update import UpdateMetadata
from edge_runtime.device.prepare.bundle import open_bundle
from edge_runtime.device.prepare.laid_weights import LaidWeights
from tests.support.device_commands import profl_edge, start, wait_for

_ROOT = Path(__file__).parents[2]
_DATA = ("--data", "digits", "--json")


def _train(bundle: Path, block: int, output: Path, *more: object) -> dict[str, object]:
    arguments = ("train", bundle, "--block", block, *_DATA, "--steps", 60, "--lr", 0.02, "-o", output, *more)
    return profl_edge(*arguments, guarded=True).report()


def _metadata(path: Path) -> UpdateMetadata:
    with safe_open(path, "numpy") as opened:
        return UpdateMetadata.from_strings(opened.metadata(), str(path))


@pytest.fixture(scope="module")
def grown(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Updates of blocks 1 to 3, each trained from those before it."""
    folder = tmp_path_factory.mktemp("grown")
    paths: list[Path] = []
    for block in (1, 2, 3):
        given = [argument for path in paths for argument in ("--weights", path)]
        assert _train(cnn_bundle, block, folder / f"u{block}", *given)["initial_blocks"] == []
        paths.append(folder / f"u{block}")
    return paths


def _options(paths: list[Path]) -> list[object]:
    return [argument for path in paths for argument in ("--weights", path)]


def test_layers_are_the_same_as_one_file_of_them(cnn_bundle: Path, grown: list[Path], tmp_path: Path) -> None:
    merged = load_file(cnn_bundle / "weights" / "initial.safetensors") | load_file(grown[0]) | load_file(grown[1])
    save_file(merged, tmp_path / "merged.safetensors")
    report = _train(cnn_bundle, 3, tmp_path / "u3", "--weights", tmp_path / "merged.safetensors")
    assert (tmp_path / "u3").read_bytes() == grown[2].read_bytes()
    assert report["initial_blocks"] == []
    evaluate = ("eval", cnn_bundle, *_DATA)
    whole = profl_edge(*evaluate, *_options(grown), guarded=True).report()
    assert whole == profl_edge(*evaluate, *_options([tmp_path / "merged.safetensors", tmp_path / "u3"])).report() | {
        name: whole[name] for name in ("measured_peak_bytes", "predicted_peak_bytes", "base_bytes")
    }
    assert whole["accuracy"] > 0.2  # chance is 0.10


def test_an_update_says_by_default_what_it_started_from(cnn_bundle: Path, grown: list[Path]) -> None:
    bundle = open_bundle(cnn_bundle)
    for count, path in enumerate(grown):
        assert _metadata(path).base_version == LaidWeights(bundle, grown[:count]).version()
    assert len({_metadata(path).base_version for path in grown}) == 3


@pytest.mark.parametrize(
    ("command", "given", "missing"),
    [
        (("train", "--block", 3), (1,), "grow-block3 reads block 1, and no file holds it"),
        (("train", "--block", 3, "--cache-prefix"), (1,), "reads block 1, and no file holds it"),
        (("train", "--block", 2, "--purpose", "distill"), (0,), "distill-block2 reads block 2, and no file holds it"),
        (("eval",), (1,), "eval-block3 reads blocks 1 and 3, and no file holds them"),
        (("eval", "--block", 2), (1,), "eval-block2 reads block 1, and no file holds it"),
    ],
)
def test_what_is_in_no_file_is_refused_unless_it_is_asked_for(
    cnn_bundle: Path,
    grown: list[Path],
    tmp_path: Path,
    command: tuple[object, ...],
    given: tuple[int, ...],
    missing: str,
) -> None:
    name, *options = command
    arguments = [name, cnn_bundle, *options, *_DATA, *_options([grown[index] for index in given])]
    if name == "train":
        arguments += ["--steps", 2, "-o", tmp_path / "update"]
    if "--cache-prefix" in options:
        arguments += ["--cache-dir", tmp_path / "cache"]
    line = profl_edge(*arguments).refusal(2)
    assert missing in line and f"--weights {grown[given[0]]}" in line and "--initial-prefix" in line
    assert list(tmp_path.iterdir()) == []
    profl_edge(*arguments, "--initial-prefix").report()


def test_a_training_behind_blocks_that_nobody_trained_says_so(cnn_bundle: Path, tmp_path: Path) -> None:
    arguments = ("train", cnn_bundle, "--block", 3, "--data", "digits", "--steps", 1)
    done = profl_edge(*arguments)
    assert done.errors == ""  # which an error has for itself, where it is not a terminal
    assert "initial values blocks 1, 2\n" in done.output
    assert "update         none: without -o, the result of this training is not kept" in done.output
    kept = profl_edge(*arguments, "-o", tmp_path / "update").output
    assert f"update         {tmp_path / 'update'}" in kept and "nothing" not in kept
    machine = profl_edge(*arguments, "--json").report()
    assert machine["initial_blocks"] == [1, 2] and machine["output"] is None
    evaluated = profl_edge("eval", cnn_bundle, "--block", 2, "--data", "digits")
    assert "initial values blocks 1, 2" in evaluated.output


def test_an_evaluation_of_weights_that_are_no_numbers_is_no_result(cnn_bundle: Path, tmp_path: Path) -> None:
    weights = load_file(cnn_bundle / "weights" / "initial.safetensors")
    weights["fc.bias"] = np.full_like(weights["fc.bias"], np.nan)
    save_file(weights, tmp_path / "nan.safetensors")
    line = profl_edge("eval", cnn_bundle, *_DATA, "--weights", tmp_path / "nan.safetensors").refusal(1)
    assert "eval-block3: the loss of the examples up to 7 is nan" in line


@pytest.mark.parametrize(
    ("bundle", "purpose", "rate"),
    [
        ("cnn_bundle", "grow", OPTIMIZERS["sgd"].learning_rate),
        ("summing_bundle", "grow", OPTIMIZERS["adamw"].learning_rate),
        ("cnn_bundle", "distill", OPTIMIZERS["sgd"].distillation_rate),
    ],
)
def test_the_learning_rate_is_by_default_that_of_the_optimizer(
    bundle: str, purpose: str, rate: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    arguments = ("train", request.getfixturevalue(bundle), "--block", 2, "--purpose", purpose, *_DATA)
    arguments += ("--steps", 3, "-o")
    profl_edge(*arguments, tmp_path / "default").report()
    profl_edge(*arguments, tmp_path / "given", "--lr", rate).report()
    assert (tmp_path / "default").read_bytes() == (tmp_path / "given").read_bytes()


def test_a_loss_that_is_finite_and_absurd_ends_the_training_as_one_that_is_no_number(
    cnn_bundle: Path, tmp_path: Path
) -> None:
    arguments = ("train", cnn_bundle, "--block", 1, *_DATA, "--steps", 2, "--lr", 1e4, "-o", tmp_path / "update")
    line = profl_edge(*arguments).refusal(3)
    assert re.search(r"step 2 of grow-block1: the loss is \d\.?\d*e\+\d+; try a smaller --lr", line)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_sees_how_far_a_training_is_and_others_do_not(cnn_bundle: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_runtime.device", "train", str(cnn_bundle), "--block", "1", *_DATA]
    command += ["--steps", "1000000", "--max-seconds", "6"]
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other end of a terminal is closed
        pass
    output, _ = process.communicate()
    assert process.returncode == 0 and output.count("\n") == 1
    assert shown.startswith(b"note: without -o, the result of this training is not kept\r\n")
    assert re.search(rb"\r\[\.+\] \d+/1000000, loss \d\.\d{4}, \d s left\x1b\[K", shown)
    assert shown.endswith(b"\r\x1b[K")


def test_the_smoothed_loss_goes_on_where_a_run_is_resumed(cnn_bundle: Path, tmp_path: Path) -> None:
    arguments = ("train", cnn_bundle, "--block", 1, *_DATA, "--lr", 0.02, "-o")
    whole = profl_edge(*arguments, tmp_path / "whole", "--steps", 50).report()
    process = start(*arguments, tmp_path / "broken", "--steps", 1000000, "--checkpoint-every", 40)
    wait_for(tmp_path / "broken.checkpoint", process)
    process.kill()
    process.communicate()
    with safe_open(tmp_path / "broken.checkpoint", "numpy") as opened:
        steps = int(re.findall(r'"steps":(\d+)', opened.metadata()["profl_checkpoint"])[0])
    end = max(50, steps)
    resumed = profl_edge(*arguments, tmp_path / "broken", "--resume", "--steps", end).report()
    assert resumed["resumed_from"] == steps
    expected = whole if end == 50 else profl_edge(*arguments, tmp_path / "whole", "--steps", end).report()
    assert resumed["loss_smoothed"] == expected["loss_smoothed"]
    assert resumed["loss_smoothed"] != resumed["loss_last"]
