"""A simulated run that was stopped goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from safetensors.numpy import load_file  # noqa: E402

from server.fleet.reading import read_fleet  # noqa: E402
from server.rounds.observer import Observer  # noqa: E402
from server.rounds.records import RoundRecord  # noqa: E402
from server.running.run_fleet import run_fleet  # noqa: E402

SMALL = """
[model]
name = "cnn"
width = 4
batch = 16

[data]
sources = ["digits"]
test_examples = 64
examples_per_client = 64

[population]
count = 6
memory_mb = [1, 2]

[promises]
source = "pytorch"

[training]
epochs = 1
rounds = 5
clients_per_round = 3
augment = "crop-flip"
schedule = "cosine"

[method]
name = "{method}"
"""


class _Stop(Exception):
    pass


class _StopsAfter(Observer):
    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def round_done(self, record: RoundRecord) -> None:
        if record.round == self.rounds:
            raise _Stop


@pytest.mark.parametrize("method", ["fedavg", "heterofl", "depthfl", "allsmall", "exclusivefl", "profl", "elastic"])
def test_a_run_that_is_resumed_ends_with_the_same_bits(method: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(SMALL.format(method=method))
    fleet = read_fleet(path)

    def go(folder: Path, observer: Observer) -> Any:
        return run_fleet(fleet, folder, resume=True, observer=observer, note=lambda text: None, engine="simulation")

    whole = go(tmp_path / "whole", Observer())
    with pytest.raises(_Stop):
        go(tmp_path / "broken", _StopsAfter(2))
    resumed = go(tmp_path / "broken", Observer())
    assert resumed.rounds == whole.rounds == 5 and resumed.accuracy == whole.accuracy
    assert resumed.method == method
    assert (resumed.bytes_down, resumed.bytes_up) == (whole.bytes_down, whole.bytes_up)
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    for name, tensor in models[0].items():
        np.testing.assert_array_equal(models[1][name], tensor)
