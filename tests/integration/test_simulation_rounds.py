"""Whole runs end with the same weights on both engines: processes of the light runtime beside PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from safetensors.numpy import load_file  # noqa: E402

from tests.support import warm  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


ROUNDS = """
[model]
name = "cnn"
width = 8
batch = 16

[data]
sources = ["digits"]
test_examples = 64

[training]
steps = 4
{option}

[method]
shrinking = true
shrink_rounds = 1
distill_rounds = 1
distill_learning_rate = 1e-3

[freezing]
max_rounds = 1
window = 1
fit_length = 2

[promises]
source = "runtime"

[[clients]]
name = "a"
limit_mb = 96

[[clients]]
name = "b"
limit_mb = 90
"""


def _run(folder: Path, engine: str) -> dict[str, Any]:
    """The summary of a run of `fleet.toml` in `folder`, below which it lies by the engine's name."""
    options = ["--fleet", folder / "fleet.toml", "--engine", engine, "--no-whole-network", "--json"]
    finished = warm.run(warm.PROFL_SERVER, "run", *options, "-o", folder / engine, folder=ROOT)
    assert finished.returncode == 0, finished.stderr
    summary: dict[str, Any] = json.loads(finished.stdout)
    return summary


@pytest.mark.parametrize(
    "option",
    [
        'learning_rate = 0.02\nproximal = 0.1\nnesterov = true\nmomentum_dtype = "bfloat16"',
        'optimizer = "adamw"\nbeta2 = 0.99\neps = 1e-4\nclip_norm = 0.5',
        *(
            pytest.param(f"learning_rate = 0.02\n{alone}", marks=pytest.mark.study)
            for alone in ("proximal = 0.1", "clip_norm = 0.5", 'nesterov = true\nmomentum_dtype = "bfloat16"')
        ),
    ],
)
def test_seven_rounds_end_with_the_same_weights_on_both_engines(option: str, tmp_path: Path) -> None:
    """Shrinking, distilling and growing, a round each, from one file: processes of the light runtime beside PyTorch."""
    (tmp_path / "fleet.toml").write_text(ROUNDS.format(option=option))
    models = {}
    for engine in ("local", "simulation"):
        summary = _run(tmp_path, engine)
        assert [(step["stage"], step["block"], step["rounds"]) for step in summary["steps"]] == [
            ("shrink", 3, 1), ("distill", 3, 1), ("shrink", 2, 1), ("distill", 2, 1),
            ("grow", 1, 1), ("grow", 2, 1), ("grow", 3, 1),
        ]  # fmt: skip
        assert summary["steps"][1]["accuracy"] >= 0
        models[engine] = load_file(tmp_path / engine / "model.safetensors")
    for name, tensor in models["local"].items():
        distance = np.linalg.norm(models["simulation"][name] - tensor)
        assert distance <= 1e-3 * max(np.linalg.norm(tensor), 1e-3), name


ELASTIC = """
margin = 0.0

[model]
name = "cnn"
width = 64
batch = 128

[data]
sources = ["digits"]
test_examples = 64

[training]
steps = 2
learning_rate = 0.02

[method]
name = "elastic"

[freezing]
max_rounds = 2
window = 1
fit_length = 2

[promises]
source = "runtime"

[[clients]]
name = "large"
limit_mb = 130

[[clients]]
name = "medium"
limit_mb = 93

[[clients]]
name = "small"
limit_mb = 60
"""


def test_clients_that_train_runs_of_blocks_end_with_the_same_weights_on_both_engines(tmp_path: Path) -> None:
    """Growing by `elastic`, two rounds a step: one client trains every block, another the last two, the third the last.

    The simulation keeps what frozen blocks put out, the processes do not: were it kept too long, both would differ.
    """
    (tmp_path / "fleet.toml").write_text(ELASTIC)
    models = {}
    for engine in ("local", "simulation"):
        _run(tmp_path, engine)
        rounds = [json.loads(line) for line in (tmp_path / engine / "rounds.jsonl").read_text().splitlines()]
        assert [[client["client"] for client in line["clients"]] for line in rounds] == [
            *[["large"]] * 2, *[["large", "medium"]] * 2, *[["large", "medium", "small"]] * 2,
        ]  # fmt: skip
        assert all(client["status"] == "ok" for line in rounds for client in line["clients"])
        models[engine] = load_file(tmp_path / engine / "model.safetensors")
    plan = json.loads((tmp_path / "local" / "plan.json").read_text())
    assert [[client["program"] for client in step["clients"]] for step in plan["steps"]] == [
        ["grow-block1", None, None],
        ["joint-blocks1-2", "grow-block2", None],
        ["joint-blocks1-3", "joint-blocks2-3", "grow-block3"],
    ]
    for name, tensor in models["local"].items():
        distance = np.linalg.norm(models["simulation"][name] - tensor)
        assert distance <= 1e-3 * max(np.linalg.norm(tensor), 1e-2), name  # a bias has hardly left zero
