"""Whether the processor slows down while it trains: its clock and temperature, read between two steps."""

from __future__ import annotations

import os
import time

_EVERY_SECONDS = 5.0
_SLOW_SHARE = 0.6
"""Of the highest clock: below it the processor is slowed down, however it began."""
_FALLEN_SHARE = 0.8
"""Of the fastest clock of this training: below it the processor has been slowed down since."""
_LOOKS = 2
"""So many in a row, for one may meet a clock that is only just rising."""
_MILLIDEGREES = 1000.0
_CPUS = "sys/devices/system/cpu"
_ZONES = "sys/class/thermal"


class Heat:
    """What the machine below `root` told about its clock and temperature; None where it tells nothing.

    Attributes:
        clock_share: of the highest clock, the lowest that was seen in two looks in a row.
        celsius: the highest temperature of any sensor.
        slowed_down: whether the clock fell far below its highest, or below what it was in this training.
    """

    def __init__(self, root: str = "/") -> None:
        clocks = [f"{folder}/cpufreq" for folder in _folders(f"{root}{_CPUS}", "cpu")]
        self._clocks = [f"{folder}/scaling_cur_freq" for folder in clocks if _number(f"{folder}/scaling_cur_freq")]
        self._highest = max((_number(f"{folder}/cpuinfo_max_freq") or 0.0 for folder in clocks), default=0.0)
        self._sensors = [f"{folder}/temp" for folder in _folders(f"{root}{_ZONES}", "thermal_zone")]
        self._next = 0.0
        self._latest: list[float] = []
        self._fastest = 0.0
        self.clock_share: float | None = None
        self.celsius: float | None = None
        self.slowed_down: bool | None = None

    def look(self) -> None:
        """Read clocks and sensors, where the last time is some seconds ago."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_SECONDS
        for sensor in self._sensors:
            degrees = (_number(sensor) or 0.0) / _MILLIDEGREES
            if degrees and (self.celsius is None or degrees > self.celsius):
                self.celsius = degrees
        fastest = max((_number(clock) or 0.0 for clock in self._clocks), default=0.0)
        if fastest and self._highest:
            self._add(fastest / self._highest)

    def _add(self, share: float) -> None:
        self._latest = [*self._latest[1 - _LOOKS :], share]
        if len(self._latest) < _LOOKS:
            return
        held = max(self._latest)  # what it reached at least once: the others may have been on the way there
        self.clock_share = held if self.clock_share is None else min(self.clock_share, held)
        self._fastest = max(self._fastest, min(self._latest))
        self.slowed_down = bool(self.slowed_down) or self._is_slow(held)

    def _is_slow(self, share: float) -> bool:
        return share < _SLOW_SHARE or share < _FALLEN_SHARE * self._fastest

    @property
    def now(self) -> str:
        """What a progress line says while the clock is low; empty where it is not."""
        if len(self._latest) < _LOOKS or not self._is_slow(max(self._latest)):
            return ""
        return f", slowed down: {self._words(max(self._latest))}"

    @property
    def line(self) -> list[str]:
        """What the table says at the end, if there is something to say."""
        if not self.slowed_down or self.clock_share is None:
            return []
        return [f"slowed down    {self._words(self.clock_share)}; cool the machine, or give fewer --threads"]

    def _words(self, share: float) -> str:
        degrees = "" if self.celsius is None else f", {self.celsius:.0f} degrees Celsius"
        return f"clock at {share:.0%} of its highest{degrees}"


def _folders(parent: str, name: str) -> list[str]:
    """Folders called `name` and a number."""
    try:
        found = os.listdir(parent)
    except OSError:
        return []
    return [f"{parent}/{entry}" for entry in found if entry.startswith(name) and entry[len(name) :].isdigit()]


def _number(path: str) -> float | None:
    """The number in a file of the kernel; None where there is none."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return float(os.read(file, 32))
    except (OSError, ValueError):
        return None
    finally:
        os.close(file)
