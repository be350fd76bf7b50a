"""The runtime's dropout in numpy, written from its description, so that eager PyTorch can drop the same elements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1


def _mix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mix32(value: NDArray[np.uint32]) -> NDArray[np.uint32]:
    value = (value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D)
    value = (value ^ (value >> np.uint32(15))) * np.uint32(0x846CA68B)
    return value ^ (value >> np.uint32(16))


def keep_factors(count: int, seed: int, execution: int, layer: int, probability: float) -> NDArray[np.float32]:
    """What elements 0..count-1 are multiplied by: 0 or 1 / (1 - probability)."""
    key = _mix64(_mix64(_mix64(seed & _MASK) ^ (execution & _MASK)) ^ layer)
    hashed = _mix32(_mix32(np.arange(count, dtype=np.uint32) ^ np.uint32(key & 0xFFFFFFFF)) + np.uint32(key >> 32))
    threshold = np.uint32(float(np.float32(probability)) * 2.0**32)
    return np.where(hashed >= threshold, np.float32(1.0 / (1.0 - probability)), np.float32(0.0))
