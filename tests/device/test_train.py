"""`profl-edge train`, `eval`, `bench` and `inspect` with the native module, a real bundle and real data."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.update import UpdateMetadata
from edge_runtime.device.limits.processes import run_limited
from tests.support.device_commands import profl_edge

_MEGABYTE = 1 << 20


def _train(bundle: Path, block: int, *more: object, guarded: bool = False) -> dict[str, object]:
    return profl_edge("train", bundle, "--block", block, "--data", "digits", *more, "--json", guarded=guarded).report()


@pytest.mark.parametrize("block", [1, 2, 3])
def test_training_lowers_the_loss_within_its_promise_and_without_host_packages(
    cnn_bundle: Path, tmp_path: Path, block: int
) -> None:
    update = tmp_path / "update.safetensors"
    report = _train(cnn_bundle, block, "--epochs", 4, "--lr", 0.02, "--threads", 2, "-o", update, guarded=True)
    assert report["block"] == block
    assert report["steps"] == 4 * (1438 // 8)
    assert report["loss_last"] < 0.8 * report["loss_first"]  # type: ignore[operator]
    assert 0 <= report["prefix_seconds"] < report["step_seconds_median"]  # type: ignore[operator]
    assert (report["prefix_seconds"] == 0) == (block == 1)
    assert report["base_bytes"] < 16 * _MEGABYTE  # type: ignore[operator]
    # The promise must not lie; it is generous only by tile buffers that a small network does not fill.
    above = report["measured_peak_bytes"] - report["predicted_peak_bytes"]  # type: ignore[operator]
    assert -3 * _MEGABYTE < above < _MEGABYTE
    assert [path.name for path in tmp_path.iterdir()] == ["update.safetensors"]


def test_an_update_holds_what_the_manifest_lists_and_no_optimizer_state(cnn_bundle: Path, tmp_path: Path) -> None:
    update = tmp_path / "update.safetensors"
    report = _train(cnn_bundle, 2, "--steps", 5, "-o", update, "--base-version", "round-7")
    program = read_json(cnn_bundle / "manifest.json", Manifest).program("grow-block2")
    tensors = load_file(update)
    expected = {t.name: t.shape for t in program.tensors if t.role != "optimizer_state"}
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected
    initial = load_file(cnn_bundle / "weights" / "initial.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert all(not np.array_equal(tensors[name], initial[name]) for name in tensors)
    with safe_open(update, "numpy") as opened:
        metadata = UpdateMetadata.from_strings(opened.metadata(), str(update))
    assert metadata == UpdateMetadata(
        block=2,
        program="grow-block2",
        examples=1438,
        steps=5,
        base_version="round-7",
        loss_first=report["loss_first"],
        loss_last=report["loss_last"],
        examples_done=40,
    )


def test_the_seed_alone_decides_the_result(cnn_bundle: Path, tmp_path: Path) -> None:
    written = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        _train(cnn_bundle, 1, "--steps", 20, "--seed", seed, "--threads", 2, "-o", tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert written[0] != written[2]


def test_the_learning_rate_and_the_users_weights_matter(cnn_bundle: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    _train(cnn_bundle, 3, "--steps", 300, "--lr", 0.02, "-o", first)
    fresh = _train(cnn_bundle, 3, "--steps", 1)
    continued = _train(cnn_bundle, 3, "--steps", 1, "--weights", first, "--initial-prefix")
    assert continued["loss_first"] < 0.8 * fresh["loss_first"]  # type: ignore[operator]
    still = tmp_path / "still.safetensors"
    _train(cnn_bundle, 3, "--steps", 3, "--lr", 0, "--weights", first, "--initial-prefix", "-o", still)
    np.testing.assert_array_equal(load_file(still)["fc.weight"], load_file(first)["fc.weight"])


def test_evaluation_improves_with_training_and_counts_the_held_out_fifth(cnn_bundle: Path, tmp_path: Path) -> None:
    update = tmp_path / "update.safetensors"
    # Ten calm epochs: running statistics of batches of 8 are noisy, and the bounds below hold for any seed.
    _train(cnn_bundle, 1, "--epochs", 10, "--lr", 0.01, "-o", update)
    arguments = ["eval", cnn_bundle, "--block", 1, "--data", "digits", "--json"]
    before = profl_edge(*arguments, guarded=True).report()
    after = profl_edge(*arguments, "--weights", update, guarded=True).report()
    assert before["examples"] == after["examples"] == 359
    assert before["loss"] == pytest.approx(math.log(10), rel=0.2)
    assert after["loss"] < 0.7 * before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.3
    assert profl_edge(*arguments, "--limit", 13).report()["examples"] == 13


def test_bench_times_steps_without_data(cnn_bundle: Path) -> None:
    report = profl_edge(
        "bench", cnn_bundle, "--block", 2, "--steps", 4, "--threads", 1, "--json", guarded=True
    ).report()
    assert report["steps"] == 4
    assert report["threads"] == 1
    assert 0 < report["step_seconds_minimum"] <= report["step_seconds_median"] <= report["step_seconds_maximum"]


def test_inspect_shows_the_memory_plan(cnn_bundle: Path) -> None:
    document = profl_edge("inspect", cnn_bundle, "--threads", 2, "--json", guarded=True).report()
    manifest = read_json(cnn_bundle / "manifest.json", Manifest)
    assert [block["block"] for block in document["blocks"]] == [1, 2, 3]
    for entry, program in zip(document["programs"], manifest.programs, strict=True):
        assert entry["total_bytes"] == program.memory.total_bytes(2)
        assert entry["arena_per_live"] == program.memory.arena_bytes / program.memory.live_bytes
    shown = profl_edge("inspect", cnn_bundle).output
    assert "grow-block2" in shown and "arena/live" in shown


def test_a_limit_above_the_promise_is_enforced_and_kept(cnn_bundle: Path, tmp_path: Path) -> None:
    update = tmp_path / "update.safetensors"
    report = _train(cnn_bundle, 1, "--steps", 5, "--memory-limit", "96MB", "-o", update)
    assert report["limit_bytes"] == 96 * _MEGABYTE
    assert report["limit_kind"] in ("cgroup-v1", "cgroup-v2", "rlimit")
    assert report["measured_peak_bytes"] <= report["limit_bytes"]  # type: ignore[operator]
    assert update.exists()


@pytest.mark.parametrize("limit", ["1MB", "9MB"])
def test_a_limit_below_the_promise_is_refused_before_training(cnn_bundle: Path, tmp_path: Path, limit: str) -> None:
    update = tmp_path / "update.safetensors"
    done = profl_edge(
        "train", cnn_bundle, "--block", 1, "--data", "digits", "--memory-limit", limit, "-o", update, "--json"
    )
    assert "is below the" in done.refusal(2)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_the_kernel_kills_leaves_nothing_half_written(cnn_bundle: Path, tmp_path: Path) -> None:
    update = tmp_path / "update.safetensors"
    arguments = ["train", str(cnn_bundle), "--block", "1", "--data", "digits", "-o", str(update)]
    outcome = run_limited([sys.executable, "-m", "edge_runtime.device", *arguments], limit_bytes=12 * _MEGABYTE)
    if outcome.limit_kind == "rlimit":
        pytest.skip("no control group may be made here, and a data limit does not kill")
    assert outcome.oom_kills == 1
    assert not update.exists()
