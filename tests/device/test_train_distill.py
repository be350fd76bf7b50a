"""`profl-edge train --purpose distill`, the proximal term, and trainings that end early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from device_profiles.update import UpdateMetadata
from tests.support import warm
from tests.support.device_commands import profl_edge, start, wait_for

_ROOT = Path(__file__).parents[2]


def _arguments(bundle: Path, *more: object, block: int = 2, purpose: str = "distill") -> list[object]:
    arguments: list[object] = ["train", bundle, "--block", block, "--purpose", purpose, "--data", "digits"]
    return [*arguments, "--lr", 0.01, "--threads", 2, "--json", *more]


def _train(bundle: Path, *more: object, block: int = 2, purpose: str = "distill") -> dict[str, Any]:
    return profl_edge(*_arguments(bundle, *more, block=block, purpose=purpose), guarded=True).report()


@pytest.mark.parametrize(("block", "head"), [(2, set()), (3, {"fc.weight", "fc.bias"})])
def test_an_update_carries_the_stand_in_and_in_the_end_the_head(
    cnn_bundle: Path, tmp_path: Path, block: int, head: set[str]
) -> None:
    outputs = [tmp_path / name for name in ("plain", "cached")]
    report = _train(cnn_bundle, "--steps", 60, "-o", outputs[0], "--base-version", "v1", block=block)
    assert report["program"] == f"distill-block{block}"
    assert report["loss_last"] < 0.5 * report["loss_first"]
    assert report["measured_peak_bytes"] - report["predicted_peak_bytes"] < 1 << 20
    tensors = load_file(outputs[0])
    assert set(tensors) == {f"output_module.block{block}.weight"} | head
    initial = load_file(cnn_bundle / "weights" / "initial.safetensors")
    assert all(not np.array_equal(value, initial[name]) for name, value in tensors.items())
    with safe_open(outputs[0], "numpy") as opened:
        metadata = UpdateMetadata.from_strings(opened.metadata(), "update")
    assert (metadata.program, metadata.block, metadata.base_version) == (f"distill-block{block}", block, "v1")
    cache = ["--cache-prefix", "--cache-dir", tmp_path / "cache"]
    assert _train(cnn_bundle, "--steps", 60, "-o", outputs[1], *cache, block=block)["prefix_seconds"] == 0
    for name, value in load_file(outputs[1]).items():
        np.testing.assert_array_equal(value, tensors[name])
    # Training the block itself reads the same rows.
    assert _train(cnn_bundle, "--steps", 1, *cache, block=block, purpose="grow")["cache_filled_examples"] == 0


def test_a_killed_distillation_resumes_to_the_same_bits(cnn_bundle: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _train(cnn_bundle, "--steps", 600, "-o", whole, block=3)
    process = start(*_arguments(cnn_bundle, "--steps", 600, "--checkpoint-every", 5, "-o", broken, block=3))
    wait_for(broken.with_name("broken.checkpoint"), process)
    process.kill()
    process.communicate()
    assert not broken.exists()
    assert _train(cnn_bundle, "--steps", 600, "--resume", "-o", broken, block=3)["resumed_from"] > 0
    assert broken.read_bytes() == whole.read_bytes()


def test_the_first_block_has_nothing_to_distil_into(cnn_bundle: Path) -> None:
    line = profl_edge(*_arguments(cnn_bundle, block=1)).refusal(2)
    assert "--purpose distill cannot be combined with --block 1: no block before it is ever trained" in line


def test_the_bench_and_inspect_know_distillations(cnn_bundle: Path) -> None:
    arguments = ["bench", cnn_bundle, "--block", 2, "--purpose", "distill", "--steps", 2, "--threads", 1, "--json"]
    assert profl_edge(*arguments).report()["program"] == "distill-block2"
    programs = profl_edge("inspect", cnn_bundle, "--json").report()["programs"]
    purposes = {entry["program"]: entry["purpose"] for entry in programs}
    assert purposes["distill-block2"] == purposes["distill-block3-cached-prefix"] == "distill"


@pytest.fixture(scope="module")
def proximal_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Block 3 of `cnn`, batch 8, with the proximal term."""
    bundle = tmp_path_factory.mktemp("proximal") / "cnn"
    options = ["--model", "cnn", "--batch", 8, "--block", 3, "--proximal", "--no-verify", "-o", bundle]
    done = warm.run("edge_runtime.export.commands.export:main", "export", *options, folder=_ROOT)
    assert done.returncode == 0, done.stderr
    return bundle


def test_a_proximal_term_holds_the_weights_near_their_start(
    cnn_bundle: Path, proximal_bundle: Path, tmp_path: Path
) -> None:
    initial = load_file(cnn_bundle / "weights" / "initial.safetensors")
    moved = {}
    for name, bundle, options in (
        ("without", cnn_bundle, []),
        ("zero", proximal_bundle, ["--proximal-mu", 0]),
        ("pulled", proximal_bundle, ["--proximal-mu", 3]),
    ):
        _train(bundle, "--steps", 40, "-o", tmp_path / name, *options, block=3, purpose="grow")
        tensors = load_file(tmp_path / name)
        parameters = [n for n in tensors if "running" not in n]
        moved[name] = sum(float(np.linalg.norm(tensors[n] - initial[n]) ** 2) for n in parameters) ** 0.5
    assert moved["zero"] == pytest.approx(moved["without"], rel=1e-4)
    assert moved["pulled"] < 0.8 * moved["without"]
    line = profl_edge(*_arguments(cnn_bundle, "--proximal-mu", 0.01, purpose="grow")).refusal(2)
    assert "--proximal-mu: grow-block2" in line and "export the bundle with --proximal" in line


def test_a_training_that_takes_too_long_says_what_it_did(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "update.safetensors"
    report = _train(cnn_bundle, "--steps", 10**6, "--max-seconds", 0.5, "-o", output, purpose="grow")
    assert report["stopped_early"] is True and report["interrupted"] is False
    assert 0 < report["steps"] < 10**6 and report["examples_done"] == 8 * report["steps"]
    with safe_open(output, "numpy") as opened:
        metadata = UpdateMetadata.from_strings(opened.metadata(), "update")
    assert metadata.stopped_early and metadata.steps == report["steps"]
    assert metadata.examples_done == report["examples_done"] and metadata.examples == 1438
    assert [path.name for path in tmp_path.iterdir()] == ["update.safetensors"]
    same = _train(cnn_bundle, "--steps", report["steps"], purpose="grow")
    assert same["loss_last"] == report["loss_last"] and same["stopped_early"] is False


def test_at_least_one_step_is_made_and_epochs_may_be_parts_of_one(cnn_bundle: Path) -> None:
    hurried = _train(cnn_bundle, "--max-seconds", 1e-6, purpose="grow")
    assert hurried["steps"] == 1 and hurried["stopped_early"] is True
    # 179 steps an epoch.
    assert _train(cnn_bundle, "--epochs", 0.1, purpose="grow")["steps"] == 18
    assert _train(cnn_bundle, "--epochs", 0.001, purpose="grow")["steps"] == 1
