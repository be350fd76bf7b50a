"""What the measured processes share: their timing loop and their peak. Standard library only, for any interpreter."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def timed_steps(step: Callable[[], float], *, warmup: int, steps: int) -> None:
    """Run `step` (which returns its loss) and print one JSON object about it; the warm-up's steps are not timed."""
    losses, seconds = [], []
    for number in range(-warmup, steps):
        start = time.perf_counter()
        losses.append(step())
        if number >= 0:
            seconds.append(time.perf_counter() - start)
    measured = {
        "step_seconds_median": statistics.median(seconds),
        "measured_peak_bytes": peak_resident_bytes(),
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }
    print(json.dumps(measured))


def peak_resident_bytes() -> int:
    """Highest resident memory of this process so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
