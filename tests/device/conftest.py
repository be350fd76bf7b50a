"""A real bundle for the tests on the device side, exported once by a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cnn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `cnn` model, batch 8, every block. Torch stays in the exporting process."""
    for package in ("torch", "executorch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"exporting a bundle needs {package}: pip install profl-edge[export]")
    bundle = tmp_path_factory.mktemp("bundles") / "cnn"
    command = [sys.executable, "-m", "edge_runtime.export.cli", "export", "--model", "cnn", "--all", "--batch", "8"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, "-o", str(bundle)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return bundle
