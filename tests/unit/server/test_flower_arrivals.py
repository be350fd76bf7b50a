"""Whatever of an engine still fetches when its run has ended leaves no file to the next start of the run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="the engine speaks through Flower")

from server.engines.flower import inbox as inbox_module
from server.engines.flower.arrivals import Arrivals
from tests.support.fake_federation import Federation, until
from tests.support.fake_grid import Node


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_thread_that_outlives_its_engine_finds_no_place_for_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the SuperLink went away in the middle of an answer, and comes back while the run is resumed."""
    monkeypatch.setattr(inbox_module, "_CLOSE_SECONDS", 0.05)
    there = Federation(tmp_path, {11: Node("a")})
    there.ready(1)
    waits, goes_on, pull = threading.Event(), threading.Event(), there.grid.pull_object

    def pull_object(object_id: str) -> bytes | None:
        waits.set()
        goes_on.wait(20)
        return pull(object_id)

    monkeypatch.setattr(there.grid, "pull_object", pull_object)
    there.engine.submit([there.task("a")])
    assert waits.wait(20)
    there.engine.close()
    next_start = Arrivals(tmp_path / "clients")
    goes_on.set()
    until(lambda: not there.inbox.works)
    assert not _files(tmp_path / "clients")
    next_start.close()
    assert not list((tmp_path / "clients").iterdir())


def test_a_start_removes_what_killed_ones_have_left_and_nothing_else(tmp_path: Path) -> None:
    Arrivals(tmp_path).place(3, 11).write_bytes(b"update")
    (tmp_path / "arrived-3-b").write_bytes(b"of a release that had no folder for it")
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "arrived-x.gone").mkdir()
    there = Arrivals(tmp_path)
    assert _files(tmp_path) == [tmp_path / "other"]
    there.place(4, 11).write_bytes(b"update")
    there.close()
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]
    there.close()
