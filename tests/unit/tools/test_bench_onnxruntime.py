"""onnxruntime-training as a peer: its frozen prefix keeps its statistics, and its first loss is PyTorch's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")
pytest.importorskip("executorch", reason="the bundle is exported with it")

from tools.bench.pytorch_step import Block
from tools.bench.workload import Request, Workload

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-onnxruntime" / "bin" / "python"


@pytest.mark.skipif(not PYTHON.exists(), reason="onnxruntime-training is not installed (see docs/performance.md)")
def test_the_first_loss_of_a_block_with_a_prefix_is_pytorchs(tmp_path: Path) -> None:
    request = Request(model="cnn", width=4, input_shape=(3, 32, 32), classes=10, blocks=None, partition=None, batch=4)
    workload = Workload(request, tmp_path)
    work = workload.block(2)
    workload.write_onnx(work)
    module = [str(PYTHON), "-m", "tools.bench.onnxruntime_step"]
    subprocess.run([*module, "prepare", str(work.folder)], cwd=ROOT, capture_output=True, check=True)
    done = subprocess.run([*module, "run", str(work.folder), "1", "1", "2"], cwd=ROOT, capture_output=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["loss_first"] == pytest.approx(Block(work.folder).step(), rel=1e-5)
    assert measured["loss_last"] < measured["loss_first"]
