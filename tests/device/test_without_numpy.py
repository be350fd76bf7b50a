"""A device has neither numpy nor safetensors: training, evaluation and profiles work where importing them raises."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_ROOT = Path(__file__).resolve().parents[2]
_REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "safetensors", "torch", "executorch"}:
            raise AssertionError(f"a device has no {name}")
sys.meta_path.insert(0, Refuse())
"""


def _run(folder: Path, module: str, *arguments: object) -> dict[str, object]:
    """Run a command, in which every interpreter that it starts refuses the packages; its JSON object."""
    (folder / "refused").mkdir(exist_ok=True)
    (folder / "refused" / "sitecustomize.py").write_text(_REFUSE)
    path = os.pathsep.join((str(folder / "refused"), str(_ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments), "--json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def _npz(folder: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (32, 28, 28), np.uint8)
    np.savez_compressed(folder / "part.npz", images=images, labels=np.arange(32) % 10)
    return f"npz:{folder}/part.npz?test=0.25"


def _idx(folder: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (32, 28, 28), np.uint8)
    for name in ("train", "t10k"):
        start = b"\0\0\x08\x03" + b"".join(extent.to_bytes(4, "big") for extent in images.shape)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(start + images.tobytes()))
        labels = bytes(i % 10 for i in range(32))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (32).to_bytes(4, "big") + labels)
    return f"idx:{folder}"


@pytest.mark.parametrize("make", [_npz, _idx])
def test_a_block_is_trained_and_evaluated(make: object, cnn_bundle: Path, tmp_path: Path) -> None:
    assert callable(make)
    data, output = make(tmp_path), tmp_path / "update.safetensors"
    arguments = (cnn_bundle, "--block", 1, "--data", data)
    report = _run(tmp_path, "edge_runtime.device", "train", *arguments, "--steps", 2, "-o", output)
    assert report["steps"] == 2 and output.is_file()
    _run(tmp_path, "edge_runtime.device", "eval", *arguments, "--weights", output)
    _run(tmp_path, "edge_runtime.device", "inspect", cnn_bundle)
    _run(tmp_path, "edge_runtime.device", "doctor", "--data", data)


def test_the_machine_is_profiled(cnn_bundle: Path, tmp_path: Path) -> None:
    options = ("--block", 3, "--steps", 1, "--repetitions", 1, "-o", tmp_path / "profile.json")
    _run(tmp_path, "profiler", "run", cnn_bundle, *options)
    assert (tmp_path / "profile.json").is_file()
