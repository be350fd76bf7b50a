"""How often a device asks for messages."""

from __future__ import annotations

import pytest

from edge_runtime.device.federation import asking
from edge_runtime.device.federation.asking import Asking, seconds_between


def test_a_device_that_has_waited_long_asks_seldom() -> None:
    assert seconds_between(0.0) == seconds_between(5.0) == 1.0
    assert seconds_between(80.0) == 10.0
    assert seconds_between(86400.0) == 30.0


def test_it_finds_out_late_by_a_small_share_of_what_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(asking.time, "monotonic", lambda: now)
    device = Asking()
    assert device.due
    for _ in range(50):
        before = now
        device.nothing()
        assert not device.due
        now += device.seconds_left
        assert device.due
        assert now - before <= max(1.2, 0.15 * (before - 1000.0)) + 1e-9
    assert now - before > 20.0
    device.news()
    assert device.due
