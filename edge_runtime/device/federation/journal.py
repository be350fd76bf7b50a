"""What the client says: a line for everything that leaves the device, and for what it does."""

from __future__ import annotations

import sys
import time

import msgspec


class Journal:
    """Lines on standard output, as text or as JSON objects; one line that changes on a terminal."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._json = as_json
        self._terminal = not as_json and sys.stderr.isatty()
        self._drawn = False

    def say(self, event: str, text: str, **facts: object) -> None:
        """One line; `event` and `facts` are what programs read."""
        self._clear()
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        text = " ".join(text.split())
        if self._json:
            line = msgspec.json.encode({"time": now, "event": event, "text": text, **facts}).decode()
        else:
            line = f"{now} {text}"
        print(line, flush=True)

    def sent(self, what: str, count: int, receiver: str, **facts: object) -> None:
        """`count` bytes left the device."""
        self.say("sent", f"sent to {receiver}: {what}, {count} bytes", what=what, bytes=count, to=receiver, **facts)

    def progress(self, text: str) -> None:
        """Show what is going on, on a terminal alone."""
        if self._terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False
