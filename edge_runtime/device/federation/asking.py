"""How often a device asks whether there is a message for it.

Every question costs the SuperLink writes to its database, about 16 ms of one core, and Flower has no way to wait for a
message. A device that has waited long asks seldom: it finds out later by at most a share of what it waited anyway. One
that had to wait for its answer asks seldom as well, because the SuperLink is busy: a thousand devices that asked again
at once would never let it catch up. So a few devices are served quickly, and many leave the SuperLink time to work.
"""

from __future__ import annotations

import math
import random
import time

_LEAST_SECONDS = 1.0
_MOST_SECONDS = 30.0
_SHARE = 0.125
"""Of the time waited so far."""
_BUSY = 20.0
"""Times what the last answer took."""
_MOST_BUSY_SECONDS = 120.0
_OUTAGE_SECONDS = 60.0
"""An answer that took longer was not waited for in line: the device slept, or the network did."""
_SPREAD = 0.2
"""Devices that began together do not ask together."""


def seconds_between(waited: float, took: float) -> float:
    """Between two questions of a device whose last message or answer was `waited` seconds ago, and whose last question
    was answered in `took` seconds."""
    busy = 0.0 if took > _OUTAGE_SECONDS else min(_MOST_BUSY_SECONDS, _BUSY * took)
    return max(_LEAST_SECONDS, min(_MOST_SECONDS, _SHARE * waited), busy)


class Asking:
    """When the next question of one device is due: the first one at once.

    Args:
        most_seconds: between two questions, whatever else is said; None for no such limit.
    """

    def __init__(self, most_seconds: float | None = None) -> None:
        self._most_seconds = math.inf if most_seconds is None else most_seconds
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

    def asked(self, took: float) -> None:
        """There was no message, and the server answered so in `took` seconds, without an outage before that."""
        now = time.monotonic()
        spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)
        self._next = now + min(self._most_seconds, seconds_between(now - self._last_news, took) * spread)
