"""How scarce memory is on the whole device: the kernel's pressure stall information, read before it kills."""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.device.limits.control_groups import read_text

FULL_PERCENT = 10.0
SOME_PERCENT = 40.0
"""Of the latest ten seconds, in which all (or some) processes waited for memory: more, and the training is paused."""
_CALM = 0.5
"""A pause ends below this part of both."""


class MemoryPressure:
    """Watches `/proc/pressure/memory` below `root`; a kernel without it is never under pressure."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._file = root / "proc/pressure/memory"
        self._high = False

    def is_high(self) -> bool:
        """Whether a training should wait. High it stays until the pressure is well below what made it so."""
        text = read_text(self._file)
        bound = _CALM if self._high else 1.0
        self._high = _average(text, "full") >= FULL_PERCENT * bound or _average(text, "some") >= SOME_PERCENT * bound
        return self._high


def _average(text: str, kind: str) -> float:
    match = re.search(rf"^{kind} avg10=([0-9.]+) ", text, re.MULTILINE)
    return float(match[1]) if match is not None else 0.0
