"""Watch a process from outside of it: resident memory over time, proportional and swapped memory.

A thread of the profiler reads `/proc/<pid>`; the watched process runs none of this code. Runs that are timed are not
watched at all.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from device_profiles.timeline import Timeline

INTERVAL_SECONDS = 0.001
_ROLLUP_EVERY_SECONDS = 0.05
_MOST_SAMPLES = 1500
_SMALLEST_CHANGE_BYTES = 64 << 10


@dataclass(slots=True)
class Watched:
    """What was seen; `None` where the system does not tell. `file_bytes` are those of the largest sample."""

    started: float
    seconds: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    file_bytes: int | None = None
    proportional_bytes: int | None = None
    swapped_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Highest resident memory among the samples: a lower bound of the true peak."""
        return max(self.resident_bytes, default=None)

    def timeline(self, step: tuple[float, float] | None) -> Timeline | None:
        """The samples, thinned; `step` is when the first step began and ended on `time.monotonic`'s clock."""
        if not self.seconds:
            return None
        kept = thin(self.seconds, self.resident_bytes)
        start, end = step if step is not None else (None, None)
        return Timeline(
            seconds=tuple(round(max(self.seconds[i] - self.started, 0.0), 4) for i in kept),
            resident_bytes=tuple(self.resident_bytes[i] for i in kept),
            step_started_seconds=None if start is None else max(start - self.started, 0.0),
            step_ended_seconds=None if end is None else max(end - self.started, 0.0),
        )


class ProcessWatch:
    """`with ProcessWatch(pid) as watched:` samples until the block ends or the process does."""

    def __init__(self, pid: int, *, root: Path = Path("/proc"), started: float | None = None) -> None:
        self._folder = root / str(pid)
        self._watched = Watched(started=time.monotonic() if started is None else started)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self._watched

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        page_bytes = _page_bytes()
        next_rollup = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            try:
                fields = (self._folder / "statm").read_text().split()
                resident, shared = int(fields[1]) * page_bytes, int(fields[2]) * page_bytes
            except (OSError, IndexError, ValueError):
                return
            if resident == 0:
                return  # a zombie: it has ended and waits to be collected
            if resident >= (self._watched.peak_bytes or 0):
                self._watched.file_bytes = shared
            self._watched.seconds.append(now)
            self._watched.resident_bytes.append(resident)
            if now >= next_rollup:
                self._roll_up()
                next_rollup = time.monotonic() + _ROLLUP_EVERY_SECONDS
            self._stop.wait(INTERVAL_SECONDS)

    def _roll_up(self) -> None:
        with suppress(OSError, ValueError, IndexError):
            fields = dict(
                line.split(":", 1) for line in (self._folder / "smaps_rollup").read_text().splitlines() if ":" in line
            )
            self._watched.proportional_bytes = _larger(self._watched.proportional_bytes, fields.get("Pss"))
            self._watched.swapped_bytes = _larger(self._watched.swapped_bytes, fields.get("Swap"))


def thin(seconds: list[float], values: list[int]) -> list[int]:
    """Positions that keep the shape: both sides of every change worth drawing, at most 1,500 and always the largest."""
    change = _SMALLEST_CHANGE_BYTES
    while True:
        kept = [0]
        for i in range(1, len(values)):
            if abs(values[i] - values[kept[-1]]) >= change:
                if kept[-1] != i - 1:
                    kept.append(i - 1)
                kept.append(i)
        kept = sorted({*kept, values.index(max(values)), len(values) - 1})
        if len(kept) <= _MOST_SAMPLES:
            return kept
        change *= 2


def _larger(known: int | None, text: str | None) -> int | None:
    if text is None:
        return known
    value = int(text.split()[0]) * 1024
    return value if known is None else max(known, value)


def _page_bytes() -> int:
    import resource

    return resource.getpagesize()
