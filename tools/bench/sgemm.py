"""The machine's matrix product in float32: `python -m tools.bench.sgemm THREADS` prints its GFLOP/s, the best seen.

Both libraries that are at hand are tried, PyTorch's (MKL) and numpy's (OpenBLAS), with large square matrices. What a
block's arithmetic takes at this rate is the floor of its step for direct convolution.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

_SIZE = 2048
_REPETITIONS = 8


def _best_seconds(product: Callable[[], object]) -> float:
    product()
    times = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure and print; numpy's threads come from OPENBLAS_NUM_THREADS, which the caller sets."""
    torch.set_num_threads(int(sys.argv[1]))
    a, b = (np.random.default_rng(seed).random((_SIZE, _SIZE), np.float32) for seed in (0, 1))
    c = np.empty_like(a)
    ours, theirs = (torch.from_numpy(array) for array in (a, b))
    result = torch.from_numpy(c)
    seconds = min(
        _best_seconds(lambda: torch.mm(ours, theirs, out=result)), _best_seconds(lambda: np.matmul(a, b, out=c))
    )
    print(2 * _SIZE**3 / seconds / 1e9)


if __name__ == "__main__":
    main()
