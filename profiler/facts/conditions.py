"""What the machine does while it is measured: clock, temperature, pressure, battery; what it does not tell is None."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from device_profiles.profile import Conditions
from edge_runtime.device.machine.battery import battery_percent, discharging
from edge_runtime.device.machine.readings import numbers_of, temperatures

_EVERY_SECONDS = 0.1
_SLOW_SHARE = 0.7
_STALLED_SHARE = 0.1
_CPU_STALLED_SHARE = 0.5


@dataclass(slots=True)
class _Reading:
    frequencies_hz: list[float] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)


class ConditionsWatch:
    """`with ConditionsWatch() as watch: ...` and then `watch.conditions()`; reads below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._reading = _Reading()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._seconds = 0.0

    def __enter__(self) -> ConditionsWatch:
        self._started = time.monotonic()
        self._before = _Counters.read(self._root)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self._after = _Counters.read(self._root)
        self._seconds = time.monotonic() - self._started

    def conditions(self) -> Conditions:
        """What was seen between entry and exit."""
        reading = self._reading
        frequency = statistics.fmean(reading.frequencies_hz) if reading.frequencies_hz else None
        maximum = _largest_frequency(self._root)
        throttles = _grown(self._before.throttles, self._after.throttles)
        memory = _grown(self._before.memory_stall, self._after.memory_stall)
        cpu = _grown(self._before.cpu_stall, self._after.cpu_stall)
        why = _throttled_because(
            frequency, maximum, throttles, memory, cpu, self._seconds, discharging(self._root) is True
        )
        known = any(value is not None for value in (frequency, throttles, memory, cpu))
        return Conditions(
            seconds=self._seconds,
            frequency_hz=frequency,
            frequency_maximum_hz=maximum,
            temperature_celsius=max(reading.temperatures, default=None),
            thermal_throttles=None if throttles is None else int(throttles),
            memory_stall_seconds=memory,
            cpu_stall_seconds=cpu,
            battery_percent=battery_percent(self._root),
            throttled=bool(why) if known else None,
            throttled_because=why,
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self._sample()
            self._stop.wait(_EVERY_SECONDS)

    def _sample(self) -> None:
        clocks = numbers_of(self._root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
        if clocks:
            self._reading.frequencies_hz.append(max(clocks) * 1000.0)
        self._reading.temperatures += temperatures(self._root)


@dataclass(frozen=True, slots=True)
class _Counters:
    memory_stall: float | None
    cpu_stall: float | None
    throttles: float | None

    @classmethod
    def read(cls, root: Path) -> _Counters:
        counts = numbers_of(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
        return cls(
            memory_stall=stall_seconds(root / "proc/pressure/memory"),
            cpu_stall=stall_seconds(root / "proc/pressure/cpu"),
            throttles=sum(counts) if counts else None,
        )


def stall_seconds(path: Path) -> float | None:
    """The `some ... total=` of a pressure file (PSI), microseconds there; None where the kernel keeps none."""
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith("some "):
                return int(line.rpartition("total=")[2]) / 1e6
    return None


def _throttled_because(
    frequency: float | None,
    maximum: float | None,
    throttles: float | None,
    memory_stall: float | None,
    cpu_stall: float | None,
    seconds: float,
    on_battery: bool,
) -> str | None:
    reasons = []
    if throttles:
        reasons.append(f"{throttles:.0f} thermal throttles")
    if frequency is not None and maximum is not None and frequency < _SLOW_SHARE * maximum:
        reasons.append(f"clock at {frequency / maximum:.0%} of its maximum")
    if memory_stall is not None and memory_stall > _STALLED_SHARE * seconds:
        reasons.append(f"waited {memory_stall / max(seconds, 1e-9):.0%} of the time for memory")
    if cpu_stall is not None and cpu_stall > _CPU_STALLED_SHARE * seconds:
        reasons.append(f"other work wanted the processor {cpu_stall / max(seconds, 1e-9):.0%} of the time")
    if reasons and on_battery:
        reasons.append("on battery")
    return ", ".join(reasons) or None


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(after - before, 0.0)


def _largest_frequency(root: Path) -> float | None:
    limits = numbers_of(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq")
    return max(limits) * 1000.0 if limits else None
