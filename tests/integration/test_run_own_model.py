"""Own models in a whole run: every engine, input and method, found beside the fleet file or where the command runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models are torch's")

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from tests.support import warm  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import torch
from torch import nn


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.second = nn.Conv2d(4, 5, 3, padding=1, stride=2)
        self.again = nn.ModuleList([self.second, self.first])
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.again[0](self.first(x).relu()).relu().mean((2, 3)))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.inner(self.embedding(x)).relu().mean(1))


def images():
    return TwoNames()


def text():
    return Text()


def features(inner=6):
    return nn.Sequential(nn.Linear(5, inner), nn.ReLU(), nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, 3))


def broken():
    raise ValueError("no weights\\nof the backbone")
"""
MODEL_OF = {
    "images": 'name = "own_networks:images"\ninput_shape = [3, 8, 8]\n',
    "tokens": 'name = "own_networks:text"\ninput_shape = [6]\ninput_dtype = "int64"\nhead = "head"\n',
    "features": 'name = "own_networks:features"\ninput_shape = [5]\n',
}
REST = """
classes = 3
batch = 4

[data]
sources = ["npz:{data}"]

[training]
steps = 1
rounds = 4
learning_rate = 0.01

[promises]
source = "pytorch"

[freezing]
window = 1
fit_length = 2
max_rounds = 1

[[clients]]
name = "a"
limit_mb = 100

[[clients]]
name = "b"
limit_mb = 100
"""


@dataclass(frozen=True)
class Ran:
    """A command that ended, and the folder of its run."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """Its result."""
        read: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return read


def _write_data(kind: str, path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(16, dtype=np.int64) % 3
    name, inputs = {
        "images": ("images", generator.integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)),
        "tokens": ("inputs", generator.integers(0, 7, (16, 6))),
        "features": ("inputs", generator.standard_normal((16, 5)).astype(np.float32)),
    }[kind]
    arrays = {name: inputs, "labels": labels, f"test_{name}": inputs[:6], "test_labels": labels[:6]}
    np.savez(path, **arrays)


def _run(
    folder: Path, kind: str, *options: str, model: str = "", method: str = "profl", beside: bool = True, more: str = ""
) -> Ran:
    """A run of the own model of `kind`, whose module lies beside the fleet file, or else where the command runs.

    `more` is written behind it.
    """
    data, fleet, elsewhere = folder / "data.npz", folder / "fleets" / "fleet.toml", folder / "elsewhere"
    fleet.parent.mkdir()
    elsewhere.mkdir()
    _write_data(kind, data)
    ((fleet.parent if beside else elsewhere) / "own_networks.py").write_text(MODULE + more)
    fleet.write_text(f"[model]\n{model or MODEL_OF[kind]}{REST.format(data=data)}\n[method]\nname = '{method}'\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["run", "--fleet", fleet, "-o", folder / "run", *options]
    done = warm.run(warm.PROFL_SERVER, *command, folder=elsewhere, environment=environment)
    return Ran(done.returncode, done.stdout, done.stderr, folder / "run")


def _module(name: str) -> nn.Module:
    scope: dict[str, Any] = {"__name__": "own_networks"}
    exec(MODULE, scope)  # the text that the run imports
    made: nn.Module = scope[name]()
    return made


@pytest.mark.parametrize(("kind", "name"), [("images", "images"), ("tokens", "text"), ("features", "features")])
@pytest.mark.parametrize("engine", ["local", "simulation"])
def test_an_own_model_of_every_input_is_trained_by_every_engine(
    engine: str, kind: str, name: str, tmp_path: Path
) -> None:
    if engine == "local":
        pytest.importorskip("executorch", reason="the bundle is written with it")
    compared = kind == "images"  # with PyTorch, once: that starts processes of its own
    ran = _run(tmp_path, kind, "--engine", engine, *([] if compared else ["--no-whole-network"]))
    assert ran.status == 0, ran.err
    assert ran.summary["finished"] and len(ran.summary["steps"]) >= 2
    model = _module(name)
    state = load_file(ran.folder / "model.safetensors")
    assert set(state) == set(model.state_dict())
    model.load_state_dict(state, strict=True)
    if engine == "local" and compared:
        whole = ran.summary["whole_network"]
        assert whole["pytorch_peak_bytes"] > 0 and whole["native_devices"] == 2
        assert whole["pytorch_failure"] is None and whole["native_failure"] is None


def test_both_names_of_a_tensor_have_the_trained_value(tmp_path: Path) -> None:
    ran = _run(tmp_path, "images", "--engine", "simulation", beside=False)
    assert ran.status == 0, ran.err
    state = load_file(ran.folder / "model.safetensors")
    names = [name for name in state if name.startswith("again.")]
    assert len(names) == 2 + 7
    for name in names:
        twin = name.replace("again.0", "second").replace("again.1", "first")
        assert torch.equal(state[name], state[twin]), name
    torch.manual_seed(0)
    assert not torch.equal(state["again.0.weight"], _module("images").state_dict()["again.0.weight"])


@pytest.mark.parametrize("method", ["elastic", "fedavg", "exclusivefl", "depthfl"])
def test_every_method_that_takes_a_model_as_it_is_trains_an_own_one(method: str, tmp_path: Path) -> None:
    ran = _run(tmp_path, "images", "--engine", "simulation", method=method)
    assert ran.status == 0, ran.err
    assert ran.summary["method"] == method and ran.summary["finished"]


def test_elastic_clients_train_an_own_model_in_processes(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="the bundle is written with it")
    ran = _run(tmp_path, "features", "--engine", "local", "--no-whole-network", method="elastic")
    assert ran.status == 0, ran.err
    assert ran.summary["finished"]


@pytest.mark.parametrize("method", ["allsmall", "heterofl"])
def test_a_method_of_narrower_copies_says_that_an_own_model_has_none(method: str, tmp_path: Path) -> None:
    ran = _run(tmp_path, "images", "--engine", "simulation", method=method)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert f"method.name {method}: trains narrower copies of the model, which only built-in models have" in ran.err
    assert not (ran.folder / "bundle").exists() and not (ran.folder / "rounds.jsonl").exists()


@pytest.mark.parametrize("engine", ["local", "simulation"])
def test_a_factory_that_makes_no_model_is_one_line(engine: str, tmp_path: Path) -> None:
    if engine == "local":
        pytest.importorskip("executorch", reason="the bundle is written with it")
    factory = 'name = "own_networks:broken"\ninput_shape = [5]\n'
    ran = _run(tmp_path, "features", "--engine", engine, model=factory)
    lines = [line for line in ran.err.splitlines() if not line.startswith("data: ")]
    assert ran.status == 2 and len(lines) == 1, ran.err
    assert lines[0].startswith("profl-server: error: --fleet ")
    assert lines[0].endswith(
        "model.name own_networks:broken: the factory raised ValueError: no weights of the backbone"
    )


def test_a_network_that_pytorch_cannot_train_at_once_costs_the_comparison_and_not_the_run(tmp_path: Path) -> None:
    """The model cannot be made in the process that measures it: what that says is kept, and the run ends well."""
    pytest.importorskip("executorch", reason="the bundle is written with it")
    fails = "\nimport sys\nif 'server.planner.pytorch_step' in sys.orig_argv:\n    raise OSError('no disk')\n"
    ran = _run(tmp_path, "features", "--engine", "local", more=fails)
    assert ran.status == 0, ran.err
    said = "the whole network could not be trained at once with PyTorch: --model own_networks:features: importing "
    assert f"{said}own_networks raised OSError: no disk" in ran.out
    assert f"{said}own_networks raised OSError: no disk; the run goes on without this comparison" in ran.err
    whole = ran.summary["whole_network"]
    assert whole["pytorch_devices"] is None and whole["native_devices"] == 2
