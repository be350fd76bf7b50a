"""What a terminal sees while a block is trained: how far it is, the smoothed loss, the time that is left."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Callable

import pytest

from edge_runtime.device.worker import progress
from edge_runtime.device.worker.progress import ProgressLine, duration
from edge_runtime.device.worker.report import smoothed


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


_Terminal = Callable[[], Callable[[], str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Callable[[], str]]:
    """Makes standard error a terminal, from within the test; returns what reads it."""

    def opened() -> Callable[[], str]:
        ours, theirs = pty.openpty()
        monkeypatch.setattr(sys, "stderr", os.fdopen(theirs, "w"))
        return lambda: os.read(ours, 10_000).decode()

    return opened


def test_the_line_says_step_of_steps_and_the_time_that_is_left(clock: _Clock, terminal: _Terminal) -> None:
    read = terminal()
    line = ProgressLine(400)
    clock.now += 1
    line.update(10, "loss 2.3000")
    clock.now += 9
    line.update(100, "loss 1.2345")
    clock.now += 0.1
    line.update(101, "loss 1.2000")
    assert read() == "\r[#####...............] 100/400, loss 1.2345, 30 s left\x1b[K"
    line.close()
    assert read() == "\r\x1b[K"


def test_steps_of_a_run_before_do_not_count_as_quick(clock: _Clock, terminal: _Terminal) -> None:
    read = terminal()
    line = ProgressLine(400, done=300)
    clock.now += 10
    line.update(320, "loss 1.0000")
    assert "320/400, loss 1.0000, 40 s left" in read()


def test_an_end_by_the_clock_comes_before_the_last_step(clock: _Clock, terminal: _Terminal) -> None:
    read = terminal()
    line = ProgressLine(1000, allowed_seconds=25)
    clock.now += 10
    line.update(10, "loss 1.0000")
    assert "15 s left" in read()


def test_nothing_is_drawn_where_nobody_looks(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(400)
    clock.now += 10
    line.update(100, "loss 1.2345")
    line.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3540, "59 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_smoothed_loss_is_the_mean_at_first_and_follows_the_latest_later() -> None:
    value = None
    for count, loss in enumerate((4.0, 2.0, 3.0), start=1):
        value = smoothed(value, loss, count)
    assert value == pytest.approx(3.0)
    for count in range(4, 300):
        value = smoothed(value, 1.0, count)
    assert value == pytest.approx(1.0, abs=1e-3)
    assert smoothed(1.0, 3.0, 1000) == pytest.approx(1.1)
