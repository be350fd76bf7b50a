"""`profl-train --evaluate`: the accuracy and the loss that `profl-edge eval` prints."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")

from tests.support.device_commands import profl_edge
from tests.support.runner import built_runner, run, write_idx

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def runner() -> Path:
    return built_runner()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Data with a part for testing that does not fill its last batch: as IDX files, and as arrays of numpy."""
    folder = tmp_path_factory.mktemp("data")
    write_idx(folder / "idx", part="train")
    write_idx(folder / "idx", part="t10k", examples=21)
    random = np.random.default_rng(4)
    arrays = {"labels": random.integers(0, 10, 8), "test_labels": random.integers(0, 10, 19)}
    arrays["inputs"] = random.standard_normal((8, 3, 32, 32)).astype(np.float32)
    arrays["test_inputs"] = random.standard_normal((19, 3, 32, 32)).astype(np.float32)
    np.savez(folder / "data.npz", **arrays)
    return {"idx": f"idx:{folder / 'idx'}", "npz": f"npz:{folder / 'data.npz'}"}


@pytest.mark.parametrize(
    ("kind", "more", "examples"),
    [("idx", ("--block", 2), 21), ("npz", (), 19), ("idx", ("--split", "train"), 48)],
)
def test_accuracy_and_loss_are_those_of_python(
    runner: Path, cnn_bundle: Path, data: dict[str, str], kind: str, more: tuple[object, ...], examples: int
) -> None:
    arguments = (cnn_bundle, *more, "--data", data[kind], "--threads", 2, "--json")
    ours = run(runner, "--evaluate", *arguments).report()
    theirs = profl_edge("eval", *arguments).report()
    assert ours["examples"] == examples
    assert ours.keys() == theirs.keys()
    # A loss is a mean of numbers that the C library computes, and this one is another.
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-12)
    for name in ("block", "program", "accuracy", "examples", "initial_blocks", "arena_bytes", "threads"):
        assert ours[name] == theirs[name]
    assert ours["measured_peak_bytes"] <= ours["predicted_peak_bytes"]


def test_an_update_is_evaluated(runner: Path, cnn_bundle: Path, data: dict[str, str], tmp_path: Path) -> None:
    update = tmp_path / "update.safetensors"
    trained = run(runner, cnn_bundle, "--block", 1, "--data", data["idx"], "--epochs", 4, "-o", update)
    assert trained.status == 0, trained.errors
    arguments = (cnn_bundle, "--block", 1, "--data", data["idx"], "--split", "train", "--evaluate")
    before, after = (run(runner, *arguments, "--json", *more).report() for more in ((), ("--weights", update)))
    assert after["loss"] < before["loss"]
    assert (before["initial_blocks"], after["initial_blocks"]) == ([1], [])
    text = run(runner, *arguments, "--weights", update, "--memory-limit", "64MB").output
    assert f"accuracy       {after['accuracy']:.4f}\nloss           {after['loss']:.4f}\n" in text
    assert re.search(r"^measured peak .* \(limit: (cgroup-v[12]|rlimit)\)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--evaluate", "--lr", 1), "--lr cannot be combined with --evaluate: nothing is trained; leave one out"),
        (("--evaluate", "-o", "u.safetensors"), "-o cannot be combined with --evaluate"),
        (("--split", "test", "--block", 1), "--split requires --evaluate"),
        (("--evaluate", "--block", 9), "no 'eval' program for block 9; give --block one of: 1, 2, 3"),
        (("--evaluate", "--memory-limit", "2MB"), "--memory-limit 2.0MB is below the "),
    ],
)
def test_what_does_not_belong_together(
    runner: Path, cnn_bundle: Path, data: dict[str, str], tmp_path: Path, arguments: tuple[object, ...], line: str
) -> None:
    assert line in run(runner, cnn_bundle, "--data", data["idx"], *arguments, cwd=tmp_path).refusal()
    assert not list(tmp_path.iterdir())


def test_data_without_a_part_for_testing(runner: Path, cnn_bundle: Path, tmp_path: Path) -> None:
    arrays = {"images": np.zeros((8, 8, 8), np.uint8), "labels": np.zeros(8, int)}
    np.savez(tmp_path / "data.npz", **arrays)
    line = "data.npz: has no test split; add the arrays test_images and test_labels, or give --split train"
    assert line in run(runner, cnn_bundle, "--evaluate", "--data", f"npz:{tmp_path / 'data.npz'}").refusal()
    folder = write_idx(tmp_path / "idx")
    line = "idx: t10k-images-idx3-ubyte is missing"
    assert line in run(runner, cnn_bundle, "--evaluate", "--data", f"idx:{folder}").refusal()
