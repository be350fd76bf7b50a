"""A user's own model from its factory to an evaluation, by the commands alone."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.device.data.npz_writing import write_arrays
from tests.support.device_commands import profl_edge

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="exporting needs executorch: pip install profl-edge[export]"
)

SENSOR = ("--model", "tests.support.models:sensor_cnn", "--input", "6x128", "--classes", "6")
FEATURES = ("--model", "tests.support.models:mlp", "--input", "16", "--classes", "4")


def _write(path: Path, shape: tuple[int, ...], classes: int) -> None:
    """Examples whose class is the level of each channel (or feature) under noise."""
    random = np.random.default_rng(1)
    patterns = 2 * random.standard_normal((classes, shape[0], *(1,) * (len(shape) - 1)))
    labels = np.arange(96) % classes
    write_arrays(path, (patterns[labels] + 0.3 * random.standard_normal((96, *shape))).astype(np.float32), labels)


@pytest.mark.parametrize(
    ("model", "shape", "classes", "partition"),
    [(SENSOR, (6, 128), 6, "0-1,2-4"), (FEATURES, (16,), 4, "0-1,2")],
    ids=["sensor windows", "features"],
)
def test_inputs_that_are_no_images_are_trained_block_by_block(
    model: tuple[str, ...], shape: tuple[int, ...], classes: int, partition: str, tmp_path: Path
) -> None:
    bundle, data, weights = tmp_path / "bundle", tmp_path / "data.npz", tmp_path / "update.safetensors"
    _write(data, shape, classes)
    exported = profl_edge("export", *model, "--partition", partition, "--batch", "16", "-o", bundle, "--json")
    assert {p["work"]["kind"] for p in exported.report()["programs"]} == {"grow", "distill", "eval", "features"}
    inspected = profl_edge("inspect", bundle, "--json", guarded=True).report()
    assert inspected["input_shape"] == list(shape)
    for block in range(1, len(inspected["blocks"]) + 1):
        done = profl_edge(
            "train", bundle, "--block", block, "--data", f"npz:{data}", "--steps", "40", "--lr", "0.05", "-o", weights,
            "--json", guarded=True,
        )  # fmt: skip
        report = done.report()
        assert report["loss_last"] < 0.5 * report["loss_first"], block
    scored = profl_edge(
        "eval", bundle, "--block", len(inspected["blocks"]), "--data", f"npz:{data}", "--split", "train",
        "--weights", weights, "--initial-prefix", "--json", guarded=True,
    ).report()  # fmt: skip
    assert scored["accuracy"] > 0.8
    refused = profl_edge("train", bundle, "--block", "1", "--data", "digits", "-o", weights)
    assert "npz:FILE" in refused.refusal(2)


def test_the_promise_for_the_last_block_of_a_deep_network_holds_one_layer_of_its_prefix(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    model = ("--model", "tests.support.models:deep_transformer", "--partition", "0-39,40", "--block", "2")
    programs = profl_edge("export", *model, "--batch", "4", "--no-verify", "-o", bundle, "--json").report()["programs"]
    (step,) = (program for program in programs if program["name"] == "grow-block2")
    sizes = [4 * math.prod(value["shape"]) for value in step["inputs"] if value["role"] == "frozen"]
    assert len(sizes) > 200
    assert step["memory"]["frozen_bytes"] + step["memory"]["arena_bytes"] < 0.2 * sum(sizes)
    train = ("train", bundle, "--block", "2", "--data", "digits", "--steps", "3", "--json")
    report = profl_edge(*train, "-o", tmp_path / "update").report()
    assert report["measured_peak_bytes"] <= report["predicted_peak_bytes"]
    cached = profl_edge(*train, "-o", tmp_path / "cached", "--cache-prefix", "--cache-dir", tmp_path / "cache").report()
    assert cached["loss_last"] == report["loss_last"]


def test_an_operator_without_a_kernel_is_refused_at_export(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Inverse(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.inv(x)\n"
        "def factory():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), Inverse(), nn.Flatten(), nn.Linear(3600, 10))\n"
    )
    done = profl_edge("export", "--model", "own:factory", "-o", tmp_path / "bundle", folder=tmp_path)
    refused = "module '1': operator aten.linalg_inv.default (line 5 of own.py) has no training kernel"
    assert f"profl-edge: error: {refused}" in done.refusal(2)
    assert not (tmp_path / "bundle").exists()
