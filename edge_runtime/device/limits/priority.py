"""How a process stands behind others of the machine."""

from __future__ import annotations

import os

LEAST_URGENT = 19
"""The highest niceness that there is."""


def be_nice(niceness: int | None) -> None:
    """Have this process, and all that it starts, at least this niceness; None changes nothing."""
    if niceness is not None:
        os.nice(max(0, niceness - os.nice(0)))
