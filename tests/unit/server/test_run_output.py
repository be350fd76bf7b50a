"""What a start that trains nothing leaves in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_profiles.errors import ExecutionError, NothingHeldError
from server.rounds.run_state import STATE_NAME
from server.running.output import nothing_left_without_work, write_settings


def _start(output: Path, error: Exception, state: str = "") -> None:
    with nothing_left_without_work(output):
        write_settings(output, "0" * 64)
        (output / "profiles").mkdir()
        (output / "profiles" / "client000.json").touch()
        if state:
            (output / STATE_NAME).write_text(state)
        raise error


def test_where_nobody_holds_anything_the_folder_is_as_it_was(tmp_path: Path) -> None:
    run, empty = tmp_path / "run", tmp_path / "empty"
    empty.mkdir()
    for output in (run, empty):
        with pytest.raises(NothingHeldError):
            _start(output, NothingHeldError("none of 3 clients"))
    assert list(tmp_path.iterdir()) == [empty] and not list(empty.iterdir())


@pytest.mark.parametrize("error", [ExecutionError("1 of 3 clients"), KeyboardInterrupt()])
def test_what_serves_the_next_start_stays(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        _start(tmp_path / "run", error)  # type: ignore[arg-type]
    assert (tmp_path / "run" / "profiles" / "client000.json").exists()


def test_a_folder_that_was_not_empty_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").touch()
    with pytest.raises(NothingHeldError):
        _start(tmp_path / "run", NothingHeldError("none of 3 clients"))
    assert (tmp_path / "run" / "plan.json").exists() and (tmp_path / "run" / "profiles").exists()


def test_a_run_with_rounds_stays(tmp_path: Path) -> None:
    """Clients may report less memory in the middle of a run."""
    with pytest.raises(NothingHeldError):
        _start(tmp_path / "run", NothingHeldError("none of 3 clients"), state="a state that cannot be read")
    assert (tmp_path / "run" / STATE_NAME).exists()
