"""The simulation on a machine with torch and this package alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import importlib.util, runpy, sys
ABSENT = {"executorch", "torchao", "flwr", "onnx"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
assert all(importlib.util.find_spec(name) is None for name in ABSENT)
runpy.run_module("server", run_name="__main__", alter_sys=True)
"""
FLEET = """
[model]
name = "cnn"
width = 4
batch = 16

[data]
sources = ["digits"]
test_examples = 32
examples_per_client = 32

[population]
count = 2
memory_mb = [50, 60]

[promises]
source = "{source}"

[training]
steps = 1
rounds = 7

[method]
shrinking = true
shrink_rounds = 1
distill_rounds = 1

[freezing]
max_rounds = 1
"""


@pytest.mark.parametrize("source", ["pytorch", "runtime"])
def test_it_runs_to_its_end_where_executorch_flwr_and_onnx_are_not_installed(source: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET.format(source=source))
    arguments = ["run", "--fleet", str(tmp_path / "fleet.toml"), "--engine", "simulation", "-o", str(tmp_path / "run")]
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
