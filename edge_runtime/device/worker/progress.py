"""A progress line on standard error, only for people and only where waiting is noticeable."""

from __future__ import annotations

import sys
import time

_SILENT_SECONDS = 2.0
_INTERVAL_SECONDS = 0.2
_BAR_WIDTH = 30


class ProgressLine:
    """`[#####.....] 12/40 loss 1.234`, drawn when standard error is a terminal and two seconds have passed."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._enabled = sys.stderr.isatty()
        self._next = time.monotonic() + _SILENT_SECONDS
        self._drawn = False

    def update(self, done: int, note: str) -> None:
        """Show that `done` of the total are done."""
        if not self._enabled or time.monotonic() < self._next:
            return
        filled = _BAR_WIDTH * done // max(1, self._total)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        print(f"\r[{bar}] {done}/{self._total} {note}\x1b[K", end="", file=sys.stderr, flush=True)
        self._next = time.monotonic() + _INTERVAL_SECONDS
        self._drawn = True

    def close(self) -> None:
        """Remove the line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
