"""A real bundle for the tests on the device side, exported once by a process of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.support.device_commands import profl_edge


@pytest.fixture(scope="session")
def cnn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `cnn` model, batch 8, every block. Torch stays in the exporting process."""
    return _exported(tmp_path_factory.mktemp("bundles") / "cnn", "--all")


@pytest.fixture(scope="session")
def summing_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Block 2 of the same with AdamW, clipping and micro-batches, whose gradients are summed apart."""
    options = ("--block", "2", "--optimizer", "adamw", "--clip-norm", "1", "--micro-batch", "4")
    return _exported(tmp_path_factory.mktemp("bundles") / "summing", *options)


def _exported(bundle: Path, *options: str) -> Path:
    for package in ("torch", "executorch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"exporting a bundle needs {package}: pip install profl-edge[export]")
    done = profl_edge("export", "--model", "cnn", "--batch", 8, *options, "--no-verify", "-o", bundle)
    assert done.status == 0, done.errors
    return bundle
