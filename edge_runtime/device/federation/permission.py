"""When the device may train: the conditions of `--when`, and the hours in which it must not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from device_profiles.errors import UsageError
from edge_runtime.device.limits.control_groups import read_text

Condition = Literal["idle", "charging", "cool"]
CONDITIONS: tuple[Condition, ...] = ("idle", "charging", "cool")
OTHERS_SHARE = 0.25
"""Of all processors: a device that does more than this for others is not idle."""
WARM_CELSIUS = 70.0
"""A training ends at this temperature of any part, and none begins within 5 degrees of it."""
_COOLED_CELSIUS = 5.0
_WINDOW_SECONDS = 20.0
_DAY_MINUTES = 24 * 60


class Permission:
    """Whether this device may train now.

    Args:
        when: conditions that must hold all together.
        quiet: the hours in which it must not train, as `22:00-07:00` of local time; None where there are none.
        own_seconds: processor seconds that this client and its children have used; those are not others'.
        root: where `/proc` and `/sys` lie.
    """

    def __init__(
        self,
        when: Sequence[Condition],
        quiet: str | None = None,
        *,
        own_seconds: Callable[[], float] = lambda: 0.0,
        root: Path = Path("/"),
    ) -> None:
        self._when = when
        self._quiet = None if quiet is None else parse_hours(quiet)
        self._load = _Load(own_seconds, root)
        self._root = root

    def refusal(self, *, training: bool = False) -> str | None:
        """Why it may not train now; None where it may. `training`: whether it does already."""
        if self._quiet is not None and _within(self._quiet, time.localtime()):
            return "quiet hours"
        checks: Mapping[Condition, Callable[[], str | None]] = {
            "idle": self._load.refusal,
            "charging": lambda: not_charging(self._root),
            "cool": lambda: too_warm(self._root, WARM_CELSIUS - (0 if training else _COOLED_CELSIUS)),
        }
        return next((why for name in self._when if (why := checks[name]()) is not None), None)


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """The conditions of `idle,charging,cool`, each once. Raises UsageError."""
    given = [part.strip() for part in text.split(",")]
    unknown = [part for part in given if part not in CONDITIONS]
    if unknown:
        raise UsageError(
            f"'{unknown[0]}' is no condition",
            field="when",
            value=text,
            remedy=f"give some of {', '.join(CONDITIONS)}, separated by commas",
        )
    return tuple(name for name in CONDITIONS if name in given)


def parse_hours(text: str) -> tuple[int, int]:
    """First and last minute of the day of `22:00-07:00`, which may reach over midnight. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*", text)
    if match is not None:
        first, last = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3))
        if max(first, last) <= _DAY_MINUTES and max(int(match[2]), int(match[4])) < 60 and first != last:
            return first % _DAY_MINUTES, last % _DAY_MINUTES
    raise UsageError(
        "are no hours of a day", field="quiet_hours", value=text, remedy="write them as 22:00-07:00, in local time"
    )


def not_charging(root: Path = Path("/")) -> str | None:
    """Why the device is not on external power; None where it is, or has no battery at all."""
    supplies = [path for path in _entries(root / "sys/class/power_supply") if _word(path / "scope") != "Device"]
    batteries = [path for path in supplies if _word(path / "type") == "Battery"]
    mains = [path for path in supplies if _word(path / "type") not in ("Battery", "")]
    if any(_word(path / "online") not in ("0", "") for path in mains):
        return None
    if not batteries or any(_word(path / "status") in ("Charging", "Full", "Not charging") for path in batteries):
        return None
    return "not charging"


def too_warm(root: Path = Path("/"), celsius: float = WARM_CELSIUS) -> str | None:
    """Why the device is too warm to train; None where it is below so many degrees, or does not tell."""
    for zone in _entries(root / "sys/class/thermal"):
        text = _word(zone / "temp")
        if zone.name.startswith("thermal_zone") and re.fullmatch(r"-?\d+", text):
            found = int(text) / 1000
            if found >= celsius:
                return f"{found:.0f} °C warm"
    return None


class _Load:
    """How much of the processors others use, over the latest seconds."""

    def __init__(self, own_seconds: Callable[[], float], root: Path) -> None:
        self._own_seconds = own_seconds
        self._file = root / "proc/stat"
        self._samples: list[tuple[float, float, float]] = []
        self._sample()

    def refusal(self) -> str | None:
        """Why the device is not idle; at the very start, that there is nothing yet to compare with."""
        self._sample()
        (_, busy, total), (_, busy_now, total_now) = self._samples[0], self._samples[-1]
        if total_now <= total:
            return "not known to be idle yet"
        share = (busy_now - busy) / (total_now - total)
        return f"others use {share:.0%} of the processors" if share > OTHERS_SHARE else None

    def _sample(self) -> None:
        """Remember when, the seconds that others used, and all seconds of all processors."""
        words = read_text(self._file).partition("\n")[0].split()
        if len(words) < 5 or words[0] != "cpu":
            words = ["cpu", "0", "0", "0", "0"]
        # Guests are counted within user time already; what waits for a disk is idle.
        ticks = [int(word) / _TICKS for word in words[1:9]]
        total = sum(ticks)
        idle = sum(ticks[3:5])
        now = time.monotonic()
        self._samples.append((now, total - idle - self._own_seconds(), total))
        while len(self._samples) > 2 and self._samples[1][0] < now - _WINDOW_SECONDS:
            self._samples.pop(0)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _word(path: Path) -> str:
    return read_text(path).strip()


def _within(hours: tuple[int, int], now: time.struct_time) -> bool:
    first, last = hours
    minute = now.tm_hour * 60 + now.tm_min
    return first <= minute < last if first < last else minute >= first or minute < last


_TICKS = 100
"""Of `/proc/stat` in a second, on every kernel that programs see."""
