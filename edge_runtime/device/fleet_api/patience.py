"""Trying again while the link is down: longer and longer pauses, until the caller's deadline or for ever."""

from __future__ import annotations

import random
import threading
import time
from typing import TypeVar

from edge_runtime.device.fleet_api.errors import CertificateError, LinkDownError, LinkError, LinkStoppedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0


class Patience:
    """How a device waits.

    Attributes:
        stop: set by whoever wants the waiting to end.
        notice: called with one line when the link goes down, and when it is back.
    """

    def __init__(self, stop: threading.Event | None = None, notice: Callable[[str], None] | None = None) -> None:
        self.stop = stop or threading.Event()
        self._notice = notice or (lambda _line: None)
        self._down = False

    def until(self, deadline: float | None, attempt: Callable[[], Result]) -> Result:
        """What `attempt` returns, tried again while the link is down; `deadline` is a `time.monotonic()`.

        Raises LinkDownError at the deadline, LinkStoppedError as soon as somebody wants to stop.
        """
        longest = FIRST_PAUSE_SECONDS
        while True:
            try:
                result = attempt()
            except LinkDownError as error:
                pause = random.uniform(0.5, 1.0) * longest
                self._say_down(str(error))
                if deadline is not None and time.monotonic() + pause > deadline:
                    raise
                self.wait(pause)
                longest = min(2 * longest, LONGEST_PAUSE_SECONDS)
            except CertificateError:
                raise
            except LinkError:
                self._say_back()  # it answers, if only with a refusal
                raise
            else:
                self._say_back()
                return result

    def wait(self, seconds: float) -> None:
        """Raises LinkStoppedError."""
        if self.stop.wait(seconds):
            raise LinkStoppedError("stopped while it waited for the SuperLink")

    def _say_down(self, line: str) -> None:
        if not self._down:
            self._down = True
            self._notice(f"{line}; trying again")

    def _say_back(self) -> None:
        if self._down:
            self._down = False
            self._notice("the SuperLink is back")
