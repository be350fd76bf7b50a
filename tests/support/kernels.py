"""Call single kernels, and compare what they put out with PyTorch in float64."""

from __future__ import annotations

import numpy as np
import torch

from edge_runtime.device import _operators

TOLERANCE = 2e-5


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 values that follow from the shape and the seed."""
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def call(name: str, *arguments: object) -> None:
    """Call `profl::<name>.out`; tuples are lists of numbers."""
    converted = [list(a) if isinstance(a, tuple) else a for a in arguments]
    assert _operators.call(f"profl::{name}.out", converted) == 0


def exact(array: np.ndarray) -> torch.Tensor:
    """The array in float64."""
    return torch.from_numpy(array.astype(np.float64))


def double(array: np.ndarray) -> torch.Tensor:
    """The array in float64, with a gradient."""
    return exact(array).requires_grad_()


def close(ours: np.ndarray, expected: torch.Tensor, name: str = "", tolerance: float = TOLERANCE) -> None:
    """Assert that a result is near the expected one, measured by its largest element."""
    theirs = expected.detach().numpy()
    scale = max(float(np.abs(theirs).max()), 1e-3)
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max()) / scale < tolerance, name
