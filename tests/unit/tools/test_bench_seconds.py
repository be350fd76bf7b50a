"""Whether a machine was quiet enough to judge predicted seconds."""

from __future__ import annotations

import pytest

from tools.bench.seconds import noise_of


def test_noise_is_how_far_the_two_quickest_of_a_program_lie_apart() -> None:
    assert noise_of([[2.0, 1.0, 1.1], [5.0, 5.0], [1.0, 1.2, 9.0]]) == pytest.approx(0.1)


def test_programs_that_were_measured_once_say_nothing_of_noise() -> None:
    assert noise_of([[1.0], [2.0]]) is None
    assert noise_of([[1.0], [1.0, 1.5]]) == pytest.approx(0.5)
