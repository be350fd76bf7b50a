"""A SuperLink that is killed while it works is started again for ever; one that never comes to work is not."""

from __future__ import annotations

import pytest

from server.federation import restarts
from server.federation.restarts import MOST, WORKED_SECONDS, Restarts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(restarts.time, "monotonic", lambda: now[0])
    return now


def test_one_that_worked_is_never_given_up(clock: list[float]) -> None:
    one = Restarts()
    for _ in range(10 * MOST):
        one.started()
        one.answers()
        clock[0] += WORKED_SECONDS
        assert not one.given_up()


@pytest.mark.parametrize("answers", [False, True])
def test_one_that_ends_soon_after_its_start_is_given_up(clock: list[float], answers: bool) -> None:
    one = Restarts()
    found = []
    for _ in range(MOST + 1):
        one.started()
        if answers:
            one.answers()
        clock[0] += WORKED_SECONDS / 2
        found.append(one.given_up())
    assert found == [False] * MOST + [True]


def test_only_ends_in_a_row_count(clock: list[float]) -> None:
    one = Restarts()
    for place in range(3 * MOST):
        one.started()
        if place % MOST == 0:
            one.answers()
            clock[0] += WORKED_SECONDS
        assert not one.given_up()
