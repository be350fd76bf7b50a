"""A federation whose model has a label for every token, smoothed: its devices train what `--engine local` trains."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("flwr", reason="the federation runs on Flower")

from safetensors.numpy import load_file

from device_profiles.contract import IGNORED_LABEL
from server.data.split import write_parts
from server.fleet.fleet import DataSettings
from tests.support import warm
from tests.support.loopback import Loopback
from tests.support.position_models import CLASSES, LENGTH, VOCABULARY

LIMITS = {"a": 96, "b": 112}
FLEET = """
[model]
name = "tests.support.position_models:tagger"
batch = 4
input_shape = [{length}]
input_dtype = "int64"
classes = {classes}
partition = "0,1"
label_smoothing = 0.1

[data]
sources = ["npz:{data}"]
test_examples = 6

[method]
freezing = "equal"

[training]
steps = 2
learning_rate = 0.1
rounds = 2
min_clients = 2
join_seconds = 0
"""


def _data(path: Path) -> str:
    random = np.random.default_rng(4)
    arrays = {}
    for part, count in (("", 24), ("test_", 10)):
        arrays[f"{part}inputs"] = random.integers(0, VOCABULARY, (count, LENGTH))
        labels = random.integers(0, CLASSES, (count, LENGTH))
        labels[random.random(labels.shape) < 0.3] = IGNORED_LABEL
        arrays[f"{part}labels"] = labels
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    data = _data(tmp_path / "data.npz")
    made = Loopback(tmp_path, FLEET.format(length=LENGTH, classes=CLASSES, data=tmp_path / "data.npz"), LIMITS)
    settings = DataSettings(sources=(data,), test_examples=6)
    made.parts = write_parts(data, tmp_path / "own", list(LIMITS), settings)
    try:
        made.up()
        yield made
    finally:
        made.down()


def test_devices_with_labels_of_tokens_train_what_the_engine_local_trains(federation: Loopback) -> None:
    federation.server(*federation.run("run"))
    clients = "".join(f'[[clients]]\nname = "{name}"\nlimit_mb = {limit}\n' for name, limit in LIMITS.items())
    fleet, output = federation.folder / "local.toml", federation.folder / "local"
    fleet.write_text(federation.fleet.read_text().replace("join_seconds = 0", "") + clients)
    arguments = ("run", "--fleet", fleet, "-o", output, "--no-whole-network")
    done = warm.run(warm.PROFL_SERVER, *arguments, folder=federation.folder, environment=federation.environment)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(path / "model.safetensors") for path in (federation.folder / "run", output))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
    losses = [[record["test_loss"] for record in federation.rounds(name)] for name in ("run", "local")]
    assert losses[0] == losses[1] and len(losses[0]) == 2
    finished = [json.loads((path / "summary.json").read_text()) for path in (federation.folder / "run", output)]
    assert finished[0]["test_loss"] == finished[1]["test_loss"]
