"""What the client's own process takes, and what it leaves of the device's limit for a training."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.device.limits.control_groups import read_text

_STATUS = Path("/proc/self/status")
_KILOBYTE = 1 << 10
STEP_BYTES = 2 << 20
"""The client is counted in whole steps, so that a budget stays the same while it grows by a little."""
MARGIN_BYTES = 1 << 20
"""Counted beside what the client takes now: what it may grow by while a training runs. Files pass through it before and
after that, when it may be somewhat larger."""
EXPECTED_BYTES = 30 << 20
"""What is counted for a client of the usual size."""


def resident_bytes() -> int:
    """Of this process, now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The largest that this process has been."""
    return _status("VmHWM")


def reserved_bytes(resident: int) -> int:
    """What is counted for a client that takes `resident` bytes."""
    return -(-(resident + MARGIN_BYTES) // STEP_BYTES) * STEP_BYTES


def budget_bytes(limit: int) -> int:
    """What a training may use beside this process below `limit`."""
    return max(0, limit - reserved_bytes(resident_bytes()))


def _status(name: str) -> int:
    for line in read_text(_STATUS).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _KILOBYTE
    return 0
