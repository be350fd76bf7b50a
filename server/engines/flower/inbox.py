"""Answers as they arrive: a few threads fetch what there is of them, and each has one object in memory."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass

from device_profiles.errors import ExecutionError
from server.engines.flower.arriving import Arriving, Reply, Wanted
from server.engines.flower.mail import Mail

_THREADS = 4
_FIRST_SECONDS, _MOST_SECONDS = 0.25, 3.0
_CLOSE_SECONDS = 5.0
_OF_AGE = 0.1
"""What was sent long ago is asked for less often: an answer waits for a tenth of the time that it took."""


@dataclass(slots=True)
class _Out:
    id: str
    node: int
    answer: Arriving
    since: float
    due: float


class Inbox:
    """Fetches the answers to what was sent. Closed by `close`, which waits for no answer."""

    def __init__(self, mail: Mail, *, threads: int = _THREADS) -> None:
        self._mail = mail
        self._lock = threading.Condition()
        self._out: dict[str, _Out] = {}
        self._arrived: queue.Queue[tuple[str, Reply] | ExecutionError] = queue.Queue(maxsize=1)
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def watch(self, message_id: str, node: int, wanted: Wanted | None = None) -> None:
        """Fetch the answer to what was sent to `node` when it comes, with the file that is wanted of it."""
        answer = self._mail.answer(message_id, node, wanted)
        now = time.monotonic()
        with self._lock:
            self._out[message_id] = _Out(message_id, node, answer, now, now + _FIRST_SECONDS)
            self._lock.notify()

    def next(self, seconds: float) -> tuple[str, Reply] | None:
        """An answer with the id of what it answers; None where there is none for so long.

        Raises ExecutionError where the SuperLink cannot be reached.
        """
        try:
            arrived = self._arrived.get(timeout=max(0.0, seconds)) if seconds > 0 else self._arrived.get_nowait()
        except queue.Empty:
            return None
        if isinstance(arrived, ExecutionError):
            raise arrived
        return arrived

    def close(self) -> None:
        """End the threads as soon as each has what it fetches; what is out is asked for no more. One that waits for the
        SuperLink all the time is left alone."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        end = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    @property
    def works(self) -> bool:
        """Whether any thread has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (out := self._next_due()) is not None:
            try:
                reply = self._mail.fetch(out.answer, out.node)
            except ExecutionError as error:
                self._put(error)
                reply = None
            if reply is not None:
                self._put((out.id, reply))
                continue
            now = time.monotonic()
            out.due = now + min(max(_FIRST_SECONDS, _OF_AGE * (now - out.since)), _MOST_SECONDS)
            with self._lock:
                self._out[out.id] = out
                self._lock.notify()

    def _next_due(self) -> _Out | None:
        """The one that is to be asked for now, when it is time; None where the inbox is closed."""
        with self._lock:
            while not self._closed:
                first = min(self._out.values(), key=lambda out: out.due, default=None)
                left = None if first is None else first.due - time.monotonic()
                if first is not None and left is not None and left <= 0:
                    return self._out.pop(first.id)
                self._lock.wait(left)
        return None

    def _put(self, arrived: tuple[str, Reply] | ExecutionError) -> None:
        while not self._closed:
            try:
                self._arrived.put(arrived, timeout=0.5)
            except queue.Full:
                continue
            return
