"""Watching from outside: what a process holds over time, and which samples are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from profiler.measure.watch import ProcessWatch, Watched, thin

_GROW = "import time; x = bytearray(0); time.sleep(.2); x = bytearray(b'1') * (40 << 20); time.sleep(.3)"


def test_growth_of_another_process_is_seen_where_it_happens() -> None:
    process = subprocess.Popen([sys.executable, "-c", _GROW])
    with ProcessWatch(process.pid) as watched:
        process.wait()
    assert watched.peak_bytes is not None and watched.peak_bytes > 40 << 20
    timeline = watched.timeline(None)
    assert timeline is not None
    early = [b for t, b in zip(timeline.seconds, timeline.resident_bytes, strict=True) if t < 0.15]
    assert early and max(early) < watched.peak_bytes - (30 << 20)
    assert watched.proportional_bytes is not None and watched.proportional_bytes <= watched.peak_bytes
    assert watched.swapped_bytes is not None


def test_a_process_that_cannot_be_seen_leaves_nothing_and_no_guess(tmp_path: Path) -> None:
    with ProcessWatch(1, root=tmp_path) as watched:
        pass
    assert watched.peak_bytes is None and watched.proportional_bytes is None
    assert watched.timeline(None) is None


def test_where_smaps_are_forbidden_the_resident_memory_is_still_seen(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("100 25 5 1 0 9 0\n")
    with ProcessWatch(7, root=tmp_path) as watched:
        while not watched.seconds:
            pass
    assert watched.peak_bytes is not None and watched.peak_bytes % 25 == 0
    assert watched.proportional_bytes is None and watched.swapped_bytes is None


def test_the_first_step_is_placed_on_the_clock_of_the_samples() -> None:
    watched = Watched(started=10.0, seconds=[10.0, 11.0, 12.0], resident_bytes=[1 << 20, 2 << 20, 3 << 20])
    timeline = watched.timeline((10.5, 11.5))
    assert timeline is not None
    assert (timeline.step_started_seconds, timeline.step_ended_seconds) == (0.5, 1.5)
    assert timeline.seconds == (0.0, 1.0, 2.0)


@given(st.lists(st.integers(0, 1 << 34), min_size=1, max_size=4000))
def test_thinning_keeps_order_the_largest_and_the_last(values: list[int]) -> None:
    kept = thin([float(i) for i in range(len(values))], values)
    assert kept == sorted(set(kept)) and len(kept) <= 1500
    assert kept[0] == 0 and kept[-1] == len(values) - 1
    assert max(values[i] for i in kept) == max(values)
