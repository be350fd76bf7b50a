"""Whether a machine was quiet enough to judge predicted seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_profiles.errors import UsageError
from device_profiles.files import write_json
from tools.bench.seconds import Measured, noise_of, taken_up


def test_noise_is_how_far_the_two_quickest_of_a_program_lie_apart() -> None:
    assert noise_of([[2.0, 1.0, 1.1], [5.0, 5.0], [1.0, 1.2, 9.0]]) == pytest.approx(0.1)


def test_programs_that_were_measured_once_say_nothing_of_noise() -> None:
    assert noise_of([[1.0], [2.0]]) is None
    assert noise_of([[1.0], [1.0, 1.5]]) == pytest.approx(0.5)


def test_a_second_run_adds_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    assert taken_up(path, 2) == Measured(threads=2)
    write_json(path, Measured(threads=2, seconds={"small/grow-block1": [0.1, 0.2]}))
    assert taken_up(path, 2).seconds == {"small/grow-block1": [0.1, 0.2]}


def test_seconds_of_other_threads_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    write_json(path, Measured(threads=1))
    with pytest.raises(UsageError, match=r"seconds\.json was measured with --threads 1; give another --output"):
        taken_up(path, 2)
