"""`profl-edge train --cache-prefix`: the same result, computed once, and never from something else."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_runtime.device.data.npz_writing import write_npz
from tests.support.device_commands import profl_edge, start, wait_for

_EXAMPLES = 1438
_HEADER_BYTES = 4096


def _arguments(bundle: Path, folder: Path, *more: object, block: int = 2) -> list[object]:
    arguments: list[object] = ["train", bundle, "--block", block, "--data", "digits", "--steps", 25, "--threads", 2]
    return [*arguments, "--lr", 0.02, "--cache-prefix", "--cache-dir", folder, "--json", *more]


def _cached(bundle: Path, folder: Path, *more: object, block: int = 2) -> dict[str, Any]:
    return profl_edge(*_arguments(bundle, folder, *more, block=block), guarded=True).report()


@pytest.fixture(scope="module")
def filled(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the complete cache of block 2."""
    folder = tmp_path_factory.mktemp("filled")
    assert _cached(cnn_bundle, folder, "--steps", 1)["cache_filled_examples"] == _EXAMPLES
    return folder


@pytest.fixture
def cache(filled: Path, tmp_path: Path) -> Path:
    """A copy of the filled folder."""
    return Path(shutil.copytree(filled, tmp_path / "cache"))


def _file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("block", [2, 3])
def test_float32_trains_to_the_same_bits_within_the_promise(cnn_bundle: Path, tmp_path: Path, block: int) -> None:
    outputs = [tmp_path / name for name in ("filling", "filled", "uncached")]
    filling = _cached(cnn_bundle, tmp_path / "cache", "-o", outputs[0], block=block)
    again = _cached(cnn_bundle, tmp_path / "cache", "-o", outputs[1], block=block)
    plain = ["train", cnn_bundle, "--block", block, "--data", "digits", "--steps", 25, "--threads", 2, "--lr", 0.02]
    uncached = profl_edge(*plain, "-o", outputs[2], "--json").report()
    tensors = [load_file(path) for path in outputs]
    for name, expected in tensors[2].items():
        np.testing.assert_array_equal(tensors[0][name], expected)
        np.testing.assert_array_equal(tensors[1][name], expected)
    assert filling["loss_last"] == again["loss_last"] == uncached["loss_last"]
    assert filling["cache_filled_examples"] == _EXAMPLES and again["cache_filled_examples"] == 0
    assert filling["cache_bytes"] == again["cache_bytes"] == _file(tmp_path / "cache").stat().st_size
    assert uncached["cache_bytes"] is None and again["prefix_seconds"] == 0
    for report in (filling, again, uncached):
        assert report["measured_peak_bytes"] - report["predicted_peak_bytes"] < 1 << 20


@pytest.mark.parametrize(("dtype", "share", "tolerance"), [("float16", 0.5, 1e-3), ("int8", 0.27, 3e-2)])
def test_fewer_bits_take_less_room_and_change_the_loss_little(
    cnn_bundle: Path, tmp_path: Path, filled: Path, dtype: str, share: float, tolerance: float
) -> None:
    exact = _cached(cnn_bundle, filled)
    report = _cached(cnn_bundle, tmp_path / "cache", "--cache-prefix-dtype", dtype)
    assert report["cache_bytes"] - _HEADER_BYTES <= share * (exact["cache_bytes"] - _HEADER_BYTES)
    assert report["loss_last"] == pytest.approx(exact["loss_last"], rel=tolerance)
    assert report["loss_last"] != exact["loss_last"]


def test_other_weights_before_the_block_fill_it_anew(cnn_bundle: Path, tmp_path: Path, cache: Path) -> None:
    tensors = load_file(cnn_bundle / "weights" / "initial.safetensors")
    behind = {name: 2 * tensor for name, tensor in tensors.items() if name.startswith("fc.")}
    save_file(behind, tmp_path / "behind.safetensors")
    partly = ("--initial-prefix", "--weights")
    assert _cached(cnn_bundle, cache, *partly, tmp_path / "behind.safetensors")["cache_filled_examples"] == 0
    before = {
        name: np.array(2 * tensor, tensor.dtype) for name, tensor in tensors.items() if name.startswith("stage1.")
    }
    assert before
    save_file(before, tmp_path / "before.safetensors")
    report = _cached(cnn_bundle, cache, *partly, tmp_path / "before.safetensors")
    assert report["cache_filled_examples"] == _EXAMPLES
    _file(cache)  # in the place of the old one


def test_other_data_under_the_same_name_fill_their_own(cnn_bundle: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "part.npz", tmp_path / "cache"
    images = np.arange(16 * 28 * 28, dtype=np.uint32).reshape(16, 28, 28).astype(np.uint8)
    losses = set()
    for _ in range(2):
        write_npz(data, images, np.arange(16) % 10)
        report = _cached(cnn_bundle, folder, "--data", f"npz:{data}", "--steps", 2)
        assert report["cache_filled_examples"] == 16
        losses.add(report["loss_first"])
        images ^= 255
    assert len(losses) == 2


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_a_damaged_cache_is_filled_anew(cnn_bundle: Path, cache: Path, damage: str) -> None:
    path = _file(cache)
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        raw = bytearray(path.read_bytes())
        raw[40] ^= 1
        path.write_bytes(raw)
    assert _cached(cnn_bundle, cache, "--steps", 1)["cache_filled_examples"] == _EXAMPLES


def test_kill_9_while_it_is_filled_loses_no_correctness(cnn_bundle: Path, tmp_path: Path, filled: Path) -> None:
    moments = random.Random(1)
    for attempt in range(3):
        folder = tmp_path / f"cache{attempt}"
        process = start(*_arguments(cnn_bundle, folder))
        wait_for(folder, process)
        time.sleep(moments.uniform(0.0, 0.25))
        process.kill()
        process.communicate()
        assert _cached(cnn_bundle, folder, "--steps", 1)["cache_filled_examples"] <= _EXAMPLES
        assert _file(folder).read_bytes() == _file(filled).read_bytes()


def test_a_signal_while_it_is_filled_keeps_what_is_there(cnn_bundle: Path, tmp_path: Path, filled: Path) -> None:
    folder, output = tmp_path / "cache", tmp_path / "update.safetensors"
    process = start(*_arguments(cnn_bundle, folder, "-o", output))
    wait_for(folder, process)
    while not (files := list(folder.iterdir())) or files[0].stat().st_size <= _HEADER_BYTES:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    text, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    report = json.loads(text)
    assert report["interrupted"] is True
    assert not output.exists()
    resumed = _cached(cnn_bundle, folder, "-o", output, "--resume")
    assert resumed["cache_filled_examples"] + report["cache_filled_examples"] == _EXAMPLES
    assert _file(folder).read_bytes() == _file(filled).read_bytes()


def test_a_killed_training_resumes_from_it_to_the_same_bits(cnn_bundle: Path, tmp_path: Path, cache: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _cached(cnn_bundle, cache, "--steps", 300, "-o", whole)
    process = start(*_arguments(cnn_bundle, cache, "--steps", 300, "--checkpoint-every", 5, "-o", broken))
    wait_for(broken.with_name("broken.checkpoint"), process)
    process.kill()
    process.communicate()
    report = _cached(cnn_bundle, cache, "--steps", 300, "--resume", "-o", broken)
    assert 0 < report["resumed_from"] < 300
    assert broken.read_bytes() == whole.read_bytes()


def test_two_processes_share_it(cnn_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    processes = [start(*_arguments(cnn_bundle, folder, "-o", tmp_path / name)) for name in ("a", "b")]
    reports = []
    for process in processes:
        text, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        reports.append(json.loads(text))
    assert sorted(report["cache_filled_examples"] for report in reports) == [0, _EXAMPLES]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_limit_holds_for_filling_and_for_training(cnn_bundle: Path, tmp_path: Path) -> None:
    report = _cached(cnn_bundle, tmp_path / "cache", "--memory-limit", "64MB", "-o", tmp_path / "update")
    assert report["measured_peak_bytes"] <= 64 << 20
    assert report["limit_kind"] != "none"
    refused = profl_edge(*_arguments(cnn_bundle, tmp_path / "other", "--memory-limit", "8MB"))
    assert "features-block2 needs" in refused.refusal(2)


def test_the_first_block_has_nothing_to_cache(cnn_bundle: Path, tmp_path: Path) -> None:
    line = profl_edge(*_arguments(cnn_bundle, tmp_path / "cache", block=1)).refusal(2)
    assert "--cache-prefix: block 1 has no frozen blocks before it" in line
    line = profl_edge(*_arguments(cnn_bundle, tmp_path / "cache", block=9)).refusal(2)
    assert "--cache-prefix:" in line and "block 9" in line
    assert not (tmp_path / "cache").exists()
