"""Real bundles for the tests on the device side. Torch stays in the process that exports them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bundles import commanded

_CNN = ("--model", "cnn", "--batch", 8)


@pytest.fixture(scope="session")
def cnn_bundle() -> Path:
    """The `cnn` model, batch 8, every block."""
    return commanded(*_CNN, "--all")


@pytest.fixture(scope="session")
def summing_bundle() -> Path:
    """Block 2 of the same with AdamW, clipping and micro-batches, whose gradients are summed apart."""
    return commanded(*_CNN, "--block", "2", "--optimizer", "adamw", "--clip-norm", "1", "--micro-batch", "4")
