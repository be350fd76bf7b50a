"""When a process that ends again and again is given up."""

from __future__ import annotations

import time

MOST = 5
"""Ends in a row soon after the start."""
WORKED_SECONDS = 10.0
"""One that answered for so long has worked: whatever ended it then, it is worth another start."""


class Restarts:
    """Counts the starts in a row of a process that did not come to work."""

    def __init__(self) -> None:
        self._answered: float | None = None
        self._in_a_row = 0

    def started(self) -> None:
        """It was started, and does not answer yet."""
        self._answered = None

    def answers(self) -> None:
        """It answers from now on."""
        self._answered = time.monotonic()

    def given_up(self) -> bool:
        """It has ended: whether that was once too often."""
        worked = self._answered is not None and time.monotonic() - self._answered >= WORKED_SECONDS
        self._in_a_row = 0 if worked else self._in_a_row + 1
        return self._in_a_row > MOST
