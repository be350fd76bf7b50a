"""What is kept of processes that took the place of whoever asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.device.limits.endings import Ending, Endings
from edge_runtime.device.limits.processes import Outcome

ENDED = Ending(
    returncode=3, limit_kind="rlimit", oom_kills=1, cgroup_peak_bytes=5, output="said", complaint="complained"
)


@pytest.fixture
def endings(tmp_path: Path) -> Endings:
    made = Endings(tmp_path / "run" / "endings")
    made.clear()
    return made


def test_an_ending_is_found_under_its_name_alone(endings: Endings) -> None:
    assert endings.find("one") is None
    endings.keep("one", ENDED)
    assert endings.find("one") == ENDED and endings.find("two") is None
    assert ENDED.outcome == Outcome(returncode=3, limit_kind="rlimit", oom_kills=1, cgroup_peak_bytes=5)


def test_what_is_asked_for_is_known_until_it_is_kept(endings: Endings) -> None:
    assert endings.asked() is None
    endings.ask("one")
    endings.ask("two")
    assert endings.asked() == "two"
    endings.keep("two", ENDED)
    assert endings.asked() is None
    endings.keep("three", ENDED)  # which nobody asked for


def test_what_was_kept_is_forgotten_at_once(endings: Endings) -> None:
    endings.keep("one", ENDED)
    endings.ask("two")
    endings.clear()
    assert endings.find("one") is None and endings.asked() is None
    endings.keep("one", ENDED)
    assert endings.find("one") == ENDED
