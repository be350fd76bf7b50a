"""How often a device asks for messages."""

from __future__ import annotations

import pytest

from edge_runtime.device.federation import asking
from edge_runtime.device.federation.asking import Asking, seconds_between


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asking.time, "monotonic", lambda: self.now)


def test_a_device_that_has_waited_long_asks_seldom() -> None:
    assert seconds_between(0.0, 0.02) == seconds_between(5.0, 0.02) == 1.0
    assert seconds_between(80.0, 0.02) == 10.0
    assert seconds_between(86400.0, 0.02) == 30.0


def test_a_device_whose_answer_took_long_asks_seldom() -> None:
    assert seconds_between(0.0, 0.5) == 10.0
    assert seconds_between(86400.0, 4.0) == 80.0
    assert seconds_between(0.0, 9.0) == seconds_between(0.0, 50.0) == 120.0


def test_an_outage_is_no_busy_server() -> None:
    assert seconds_between(0.0, 3600.0) == 1.0


def test_it_finds_out_late_by_a_small_share_of_what_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    device = Asking()
    assert device.due
    for _ in range(50):
        before = clock.now
        clock.now += 0.01
        device.asked(0.01)
        assert not device.due
        clock.now += device.seconds_left
        assert device.due
        assert clock.now - before <= 0.01 + max(1.2, 0.15 * (before + 0.01 - 1000.0)) + 1e-9
    assert clock.now - before > 20.0
    device.news()
    assert device.due


def test_most_seconds_are_a_limit_of_every_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    device = Asking(0.5)
    clock.now += 600.0
    for took in (0.01, 9.0):
        device.asked(took)
        assert device.seconds_left == 0.5
