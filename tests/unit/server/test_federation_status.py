"""What is shown of a federation: its run from files that others write, its devices, what strangers say."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flwr")

from device_profiles.errors import FormatError
from server.federation.activity import ACTIVITY_NAME, Activity, DeviceActivity, read_activity, write_activity
from server.federation.flower.control import Node
from server.federation.home.devices import Device
from server.federation.progress import RunFollower, RunProgress
from server.federation.status import DeviceStatus, FederationStatus, _devices, bounded
from server.federation.status_page import status_page
from server.federation.status_table import ago, status_lines
from server.federation.status_table import doing as shown_as_doing

LINE = '{{"round": {n}, "stage": "growing", "block": 1, "accuracy": {a}, "participation": 1.0, "failed": {f}}}\n'


def _line(number: int, accuracy: str, *, failed: bool = False) -> str:
    return LINE.format(n=number, a=accuracy, f="true" if failed else "false")


def _status(**changes: object) -> FederationStatus:
    device = DeviceStatus(name="board1", connection="online", connected_since=40.0, budget_bytes=128 << 20)
    values: dict[str, object] = {"folder": "federation", "up": True, "written_at": 100.0, "devices": (device,)}
    return FederationStatus(**{**values, "address": "10.0.0.1:9092", **changes})  # type: ignore[arg-type]


def test_an_activity_is_read_as_it_was_written(tmp_path: Path) -> None:
    device = DeviceActivity(name="board1", node_id=2**64 - 1, state="training", since=1.0, task="grow-units0-3")
    activity = Activity(run="demo", written_at=2.0, devices=(device,), stage="growing", block=1, round=3)
    assert read_activity(tmp_path) is None
    write_activity(tmp_path, activity)
    assert read_activity(tmp_path) == activity


def test_a_damaged_activity_is_named(tmp_path: Path) -> None:
    (tmp_path / ACTIVITY_NAME).write_text('{"run": 1}')
    with pytest.raises(FormatError, match=r"federation\.json"):
        read_activity(tmp_path)


def test_only_new_and_whole_lines_of_rounds_are_read(tmp_path: Path) -> None:
    rounds, follower = tmp_path / "rounds.jsonl", RunFollower(tmp_path)
    assert follower.read()[0] == RunProgress(folder=str(tmp_path))
    rounds.write_text(_line(1, "0.5") + _line(2, "null") + _line(3, "0.7")[:20])
    found, _ = follower.read()
    assert (found.rounds, found.accuracy, found.stage, found.block) == (2, 0.5, "growing", 1)
    rounds.write_text(_line(1, "0.5") + _line(2, "null") + _line(3, "0.7") + _line(4, "null", failed=True))
    found, _ = follower.read()
    assert (found.rounds, found.accuracy, found.failed_rounds) == (3, 0.7, 1)
    rounds.write_text(_line(1, "0.25"))
    assert follower.read()[0].accuracy == 0.25, "a resumed run cut lines off"


def test_a_file_that_cannot_be_read_is_said_and_the_rest_shown(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text(_line(1, "0.5") + "{damaged\n")
    found, _ = RunFollower(tmp_path).read()
    assert found.problem
    (tmp_path / "rounds.jsonl").write_text(_line(1, "0.5"))
    (tmp_path / ACTIVITY_NAME).write_text("damaged")
    found, activity = RunFollower(tmp_path).read()
    assert ACTIVITY_NAME in found.problem and found.accuracy == 0.5 and activity is None


def test_the_table_has_a_line_for_each_device() -> None:
    run = RunProgress(folder="runs/a", stage="growing", block=2, rounds=7, accuracy=0.8125)
    lines = status_lines(_status(run=run, round=8))
    assert lines[0] == "The federation is up at 10.0.0.1:9092: 1 of 1 devices online"
    assert lines[1] == "run runs/a: growing 2, round 8, 7 rounds finished, accuracy 0.8125"
    assert lines[-1].split()[:2] == ["board1", "online"] and "128 MB" in lines[-1]


@pytest.mark.parametrize(
    ("status", "goes_on", "asked", "doing"),
    [
        ("online", False, True, "idle"),
        ("offline", False, True, "-"),
        ("registered", False, True, "-"),
        ("online", False, False, "-"),  # the federation is down, and nobody says what its devices do
        ("online", True, True, "training grow-units0-3, 5 s"),
    ],
)
def test_a_device_is_idle_only_where_it_is_known_to_be_there(
    status: str, goes_on: bool, asked: bool, doing: str
) -> None:
    device = Device(name="board1", public_key="key", added_at=1.0, node_id=7)
    node = Node(node_id=7, public_key="key", status=status, online_since=1.0, online_until=2.0, heartbeat_seconds=1.0)
    activity = DeviceActivity(name="board1", node_id=7, state="training", since=95.0, task="grow-units0-3")
    (shown,) = _devices(
        [device],
        [node] if asked else None,
        Activity(run="run", written_at=99.0, devices=(activity,)),
        goes_on=goes_on,
    )
    assert shown_as_doing(shown, 100.0) == doing


def test_a_federation_without_devices_or_run_says_what_to_do() -> None:
    lines = status_lines(_status(devices=(), up=False))
    assert lines == [
        "The federation is down: 0 of 0 devices online",
        "no run was started",
        "",
        "no devices; add one with profl-server federation add-device NAME",
    ]


HOSTILE = "<script>alert(1)</script>\x1b[2J\x07" + "x" * 500


def test_what_strangers_say_is_escaped_and_cut() -> None:
    device = DeviceStatus(name="board1", connection="online", task=bounded(HOSTILE), last=bounded(HOSTILE))
    page, table = status_page(_status(devices=(device,))), "\n".join(status_lines(_status(devices=(device,))))
    assert "<script" not in page and "&lt;script&gt;" in page
    for text in (page, table):
        assert "\x1b" not in text and "\x07" not in text and "x" * 100 not in text


def test_the_page_loads_itself_again_and_draws_the_accuracies() -> None:
    page = status_page(_status(accuracies=((1, 0.1), (2, 0.6))))
    assert '<meta http-equiv="refresh" content="5">' in page and "<polyline" in page and "default-src 'none'" in page
    assert "<polyline" not in status_page(_status(accuracies=((1, 0.1),)))
    many = status_page(_status(accuracies=tuple((n, 0.5) for n in range(50_000))))
    assert len(many) < 40_000


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_times_are_said_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert ago(seconds) == text
