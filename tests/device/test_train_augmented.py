"""`profl-edge train --augment`: the same images for any threads, after any interruption, and from a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.device.data.npz_writing import write_arrays, write_npz
from tests.support.device_commands import profl_edge, start, wait_for

_EXAMPLES = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noise in colour: five batches of the bundle's."""
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    pixels = np.random.default_rng(5).integers(0, 256, (_EXAMPLES, 3, 32, 32), np.uint8)
    write_npz(path, pixels, np.arange(_EXAMPLES) % 10)
    return f"npz:{path}"


def _arguments(bundle: Path, data: str, *more: object, block: int = 2) -> list[object]:
    arguments: list[object] = ["train", bundle, "--block", block, "--data", data, "--augment", "crop-flip"]
    return [*arguments, "--lr", 0.02, "--threads", 2, "--json", *more]


def _train(bundle: Path, data: str, *more: object, block: int = 2) -> dict[str, Any]:
    return profl_edge(*_arguments(bundle, data, *more, block=block), guarded=True).report()


def test_threads_do_not_matter_and_the_seed_does(cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    written = []
    for name, options in {"two": [], "one": ["--threads", 1], "seed": ["--seed", 1]}.items():
        report = _train(cnn_bundle, data, "--epochs", 2, "-o", tmp_path / name, *options)
        assert report["measured_peak_bytes"] - report["predicted_peak_bytes"] < 1 << 20
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]
    plain = ["train", cnn_bundle, "--block", 2, "--data", data, "--lr", 0.02, "--epochs", 2, "-o", tmp_path / "plain"]
    profl_edge(*plain, "--json").report()
    assert (tmp_path / "plain").read_bytes() != written[0]


def test_a_killed_training_resumes_to_the_same_bits(cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _train(cnn_bundle, data, "--steps", 600, "-o", whole)
    process = start(*_arguments(cnn_bundle, data, "--steps", 600, "--checkpoint-every", 7, "-o", broken))
    wait_for(broken.with_name("broken.checkpoint"), process)
    process.kill()
    process.communicate()
    assert not broken.exists()
    assert _train(cnn_bundle, data, "--steps", 600, "--resume", "-o", broken)["resumed_from"] > 0
    assert broken.read_bytes() == whole.read_bytes()


def test_cached_versions_are_those_of_the_first_epochs(cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    cache = ["--cache-prefix", "--cache-dir", tmp_path / "cache", "--cached-augmentations", 2]
    losses = {}
    for epochs in (2, 3):
        plain = _train(cnn_bundle, data, "--epochs", epochs)
        cached = _train(cnn_bundle, data, "--epochs", epochs, *cache)
        losses[epochs] = plain["loss_last"], cached["loss_last"]
        assert cached["cache_filled_examples"] == (2 * _EXAMPLES if epochs == 2 else 0)
    assert losses[2][0] == losses[2][1]
    assert losses[3][0] != losses[3][1]  # the third epoch sees the first version again
    (path,) = (tmp_path / "cache").iterdir()
    assert path.stat().st_size == cached["cache_bytes"]
    plain_cache = _train_unaugmented(cnn_bundle, data, tmp_path / "cache")
    assert cached["cache_bytes"] - 4096 == 2 * (plain_cache["cache_bytes"] - 4096)
    assert plain_cache["cache_filled_examples"] == _EXAMPLES
    assert _train(cnn_bundle, data, "--epochs", 1, *cache)["cache_filled_examples"] == 0  # both stay
    assert _train(cnn_bundle, data, "--epochs", 1, *cache, "--seed", 1)["cache_filled_examples"] == 2 * _EXAMPLES


def _train_unaugmented(bundle: Path, data: str, folder: Path) -> dict[str, Any]:
    arguments: list[object] = ["train", bundle, "--block", 2, "--data", data, "--steps", 1, "--threads", 2, "--json"]
    return profl_edge(*arguments, "--cache-prefix", "--cache-dir", folder).report()


def test_rounds_of_one_training_share_a_cache(cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    cache = ["--cache-prefix", "--cache-dir", tmp_path / "cache", "--cached-augmentations", 3, "--augment-seed", 9]
    for number in range(3):
        options = ["--seed", number, "--augment-epoch", number]
        plain = _train(cnn_bundle, data, *options, "--augment-seed", 9)
        cached = _train(cnn_bundle, data, *options, *cache)
        assert plain["loss_last"] == cached["loss_last"]
        assert cached["cache_filled_examples"] == (0 if number else 3 * _EXAMPLES)
    first = _train(cnn_bundle, data, "--augment-seed", 9)
    again = _train(cnn_bundle, data, "--augment-seed", 9, "--augment-epoch", 1)
    assert first["loss_first"] != again["loss_first"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--augment-seed", 2], "--augment-seed requires --augment"),
        (["--augment-epoch", 2], "--augment-epoch requires --augment"),
        (["--augment", "crop-flip", "--cache-prefix"], "--cached-augmentations N"),
        (
            ["--cached-augmentations", 2, "--cache-prefix"],
            "--cached-augmentations requires --augment and --cache-prefix",
        ),
        (["--cached-augmentations", 2, "--augment", "crop-flip"], "requires --augment and --cache-prefix"),
    ],
)
def test_what_does_not_go_together_is_refused(cnn_bundle: Path, data: str, options: list[object], named: str) -> None:
    assert named in profl_edge("train", cnn_bundle, "--block", 2, "--data", data, *options).refusal(2)


def test_inputs_that_are_no_images_are_refused(cnn_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    write_arrays(path, np.zeros((16, 3, 32, 32), np.float32), np.zeros(16, np.int64))
    line = profl_edge(*_arguments(cnn_bundle, f"npz:{path}")).refusal(2)
    assert "--augment crop-flip" in line and str(path) in line and "not images" in line
