"""What a server app is told, what a run's folder says of its devices, and who follows it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="the server app is Flower's")

from device_profiles.errors import FormatError, UsageError
from server.engines.flower.activity import ActivityFile
from server.federation.activity import read_activity
from server.fleet.structure import Structure
from server.serving.remote import _Log as Follower
from server.serving.serving import serve
from tests.support.fake_federation import Federation
from tests.support.fake_grid import FakeGrid, Node
from tests.support.fake_run import MANIFEST


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "run config: fleet '.': must be an absolute path"),
        ({"fleet": "/x/fleet.toml", "run": "run"}, "run config: run 'run': must be an absolute path"),
    ],
)
def test_a_config_that_names_nothing_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        serve(FakeGrid(tmp_path, {}), config, 7)


def test_a_fleet_file_that_names_clients_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[model]\nname = "cnn"\n[data]\nsources = ["digits"]\n[[clients]]\nname = "a"\nlimit_mb = 9\n')
    grid = FakeGrid(tmp_path / "nodes", {1: Node("a")})
    with pytest.raises(FormatError, match="the clients of --engine flower are the devices that join"):
        serve(grid, {"fleet": str(fleet), "run": str(tmp_path / "run")}, 7)
    assert not grid.sent and not (tmp_path / "run").exists()


def test_whoever_follows_a_run_hears_whole_lines_once(tmp_path: Path) -> None:
    path, said = tmp_path / "progress.log", list[str]()
    path.write_text("of an earlier start\n")
    follower = Follower(path)
    with path.open("a") as file:
        file.write("first\nsec")
    follower.tell(said.append)
    with path.open("a") as file:
        file.write("ond\n")
    follower.tell(said.append)
    assert said == ["first", "second"]


def test_the_folder_of_a_run_says_what_each_device_is_doing(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {11: Node("a", train=lambda order, honest: None), 12: Node("b")})
    try:
        federation.ready(2)
        file = ActivityFile(tmp_path, federation.devices, Structure.of(MANIFEST), "run-1", 5)
        federation.engine.submit([federation.task("a"), federation.task("b")])
        list(federation.engine.events(time.monotonic() + 2))
        file.write(federation.task("a"))
        found = read_activity(tmp_path)
        assert found is not None and (found.round, found.block, found.stage, found.flower_run) == (1, 1, "grow", 5)
        a, b = found.devices
        assert (a.name, a.state, a.task) == ("a", "training", "grow-units0-0") and (b.state, b.last) == ("idle", "ok")
        del federation.grid.nodes[12]
        time.sleep(3.1)
        list(federation.engine.events(time.monotonic()))
        file.write(None)
        again = read_activity(tmp_path)
        assert again is not None and [device.state for device in again.devices] == ["training", "gone"]
        assert again.devices[0].since == a.since
    finally:
        federation.engine.close()
