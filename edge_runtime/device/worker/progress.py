"""A progress line on standard error, only for people and only where waiting is noticeable."""

from __future__ import annotations

import sys
import time

_SILENT_SECONDS = 2.0
_INTERVAL_SECONDS = 0.2
_BAR_WIDTH = 20


class ProgressLine:
    """`[#####.....] 12/40, loss 1.2345, 3 min left`, drawn when standard error is a terminal and two seconds passed.

    `done` of the total are there before the work begins, and it ends early after `allowed_seconds`.
    """

    def __init__(self, total: int, *, done: int = 0, allowed_seconds: float | None = None) -> None:
        self._total = total
        self._before = done
        self._allowed = allowed_seconds
        self._enabled = sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = self._started + _SILENT_SECONDS
        self._drawn = False

    def update(self, done: int, note: str) -> None:
        """Show that `done` of the total are done."""
        if not self._enabled or time.monotonic() < self._next:
            return
        filled = _BAR_WIDTH * done // max(1, self._total)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        text = f"[{bar}] {done}/{self._total}, {note}, {duration(self._seconds_left(done))} left"
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        self._next = time.monotonic() + _INTERVAL_SECONDS
        self._drawn = True

    def close(self) -> None:
        """Remove the line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _seconds_left(self, done: int) -> float:
        """If the rest goes as what was done here did."""
        passed = time.monotonic() - self._started
        left = passed * (self._total - done) / max(1, done - self._before)
        return left if self._allowed is None else min(left, max(0.0, self._allowed - passed))


def duration(seconds: float) -> str:
    """`45 s`, `3 min` or `2 h 5 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
