"""How often a device asks whether there is a message for it.

Every question costs the SuperLink a write to its database, about 20 ms of one core, and Flower has no way to wait for a
message. A device that has waited long asks seldom: it finds out later by at most a share of what it waited anyway. So a
few devices are asked for quickly, and many, whose rounds take longer, do not load the SuperLink with questions alone.
"""

from __future__ import annotations

import random
import time

_LEAST_SECONDS = 1.0
_MOST_SECONDS = 30.0
_SHARE = 0.125
"""Of the time waited so far."""
_SPREAD = 0.2
"""Devices that began together do not ask together."""


def seconds_between(waited: float) -> float:
    """Between two questions of a device whose last message or answer was `waited` seconds ago."""
    return min(_MOST_SECONDS, max(_LEAST_SECONDS, _SHARE * waited))


class Asking:
    """When the next question of one device is due."""

    def __init__(self) -> None:
        self._last_news = self._next = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until the next question."""
        return max(0.0, self._next - time.monotonic())

    @property
    def due(self) -> bool:
        """Whether it is time for the next question."""
        return not self.seconds_left

    def news(self) -> None:
        """A message came, or an answer was sent: the next question is due at once."""
        self._last_news = self._next = time.monotonic()

    def nothing(self) -> None:
        """The answer was that there is nothing."""
        now = time.monotonic()
        self._next = now + seconds_between(now - self._last_news) * random.uniform(1 - _SPREAD, 1 + _SPREAD)
