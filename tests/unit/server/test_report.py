"""The report of runs: finished ones, and ones that go on."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from device_profiles.work import grow
from server.rounds.run_state import RunFolder

pytest.importorskip("matplotlib", reason="figures are drawn with it")

from device_profiles.errors import ExecutionError, FormatError
from device_profiles.files import write_json
from device_profiles.task import Result, Task
from server.averaging.aggregation import ReceivedUpdate
from server.cli import cli
from server.report.figures import measure_over_device_seconds, measure_over_rounds
from server.report.page import report_page
from server.report.run_tables import report_table
from server.report.runs import read_run
from server.rounds.run_state import FLEET_NAME
from tests.support.fake_run import MANIFEST, FakeEngine, fleet_of, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three blocks with nine rounds, as long as movement needs to be seen."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    run(folder, FakeEngine(), rounds=9)
    write_json(folder / FLEET_NAME, fleet_of(rounds=9))
    return folder


def test_stages_and_curves_are_read_back(folder: Path) -> None:
    read = read_run(folder)
    assert read.stages() == [("grow 1", 1, 9), ("grow 2", 10, 18), ("grow 3", 19, 27)]
    rounds, accuracies = read.reached()
    assert rounds == list(range(1, 28)) and len(accuracies) == 27


def test_the_page_has_every_figure_as_sound_svg(folder: Path) -> None:
    page = report_page([read_run(folder)])
    pictures = page.split("<svg")[1:]
    assert len(pictures) == 6
    for picture in pictures:
        ElementTree.fromstring("<svg" + picture.split("</svg>")[0] + "</svg>")
    for words in ("not finished, 27 rounds", "effective movement", "threshold", "grow 3", "clients with work"):
        assert words in page


def test_rounds_that_were_given_up_are_told_with_their_places(tmp_path: Path) -> None:
    def dies(call: int, task: Task, update: ReceivedUpdate) -> ReceivedUpdate | Result:
        second = task.work == grow(MANIFEST.partition, 2)
        return Result(client=task.client, status="died", seconds=0.1) if second else update

    write_json(tmp_path / FLEET_NAME, fleet_of(rounds=2))
    for times in ("once", "2 times"):
        with pytest.raises(ExecutionError, match="grow 2, round 1"):
            run(tmp_path, FakeEngine(fate=dies), rounds=2)
        stopped = f"{tmp_path.name}: stopped {times} because too few clients delivered (grow 2, round 1)"
        assert report_table([read_run(tmp_path)]).splitlines()[-1] == stopped
    assert "Effective movement" not in report_page([read_run(tmp_path)])  # its window is not over
    run(tmp_path, FakeEngine(), rounds=2)
    read = read_run(tmp_path)
    assert [record.round for record in read.rounds] == [1, 2, 3, 4, 5, 6]
    assert stopped in report_page([read])


def test_steps_are_marked_where_they_begin_in_rounds_and_in_device_seconds(folder: Path) -> None:
    read = read_run(folder)
    clients = read.rounds[0].clients
    assert clients
    costly = [
        msgspec.structs.replace(r, clients=tuple(msgspec.structs.replace(c, seconds=1.0 + r.block) for c in r.clients))
        for r in read.rounds
    ]
    read = dataclasses.replace(read, rounds=tuple(costly))
    seconds = read.device_seconds()
    for draw, starts in (
        (measure_over_rounds, [0.5, 9.5, 18.5]),
        (measure_over_device_seconds, [0.0, seconds[9], seconds[18]]),
    ):
        axes = draw([read]).axes[0]
        marks = [line.get_xdata()[0] for line in axes.lines[1:]]
        assert marks == pytest.approx(starts)
        assert [text.get_text() for text in axes.texts] == ["grow 1", "grow 2", "grow 3"]
        assert [text.xy[0] for text in axes.texts] == pytest.approx(starts)
        left, right = axes.get_xlim()
        assert left <= starts[0] and right > starts[-1]
        assert len(draw([read, read]).axes[0].lines) == 2  # runs that are compared have steps of their own
    assert seconds[18] - seconds[9] > seconds[9] > 0


def test_a_step_too_short_for_its_name_is_marked_without_it(folder: Path) -> None:
    read = read_run(folder)
    short = [msgspec.structs.replace(r, block=9, round_of_stage=1) if r.round == 5 else r for r in read.rounds]
    long = [msgspec.structs.replace(r, round=r.round * 10 - 9) if r.round > 5 else r for r in short]
    axes = measure_over_rounds([dataclasses.replace(read, rounds=tuple(long))]).axes[0]
    assert len(axes.lines) > len(axes.texts) + 1
    assert "grow 2" in {text.get_text() for text in axes.texts}


def test_several_runs_are_compared_in_one_table(folder: Path) -> None:
    answer = CliRunner().invoke(cli, ["report", str(folder), str(folder), "--json"])
    assert answer.exit_code == 0
    assert [known["rounds"] for known in json.loads(answer.stdout)["runs"]] == [27, 27]
    table = CliRunner().invoke(cli, ["report", str(folder), str(folder)]).stdout
    assert len(table.splitlines()) == 3


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no run here"):
        read_run(tmp_path)


def test_half_a_line_behind_the_saved_rounds_is_not_read(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(), rounds=1)
    folder = RunFolder(tmp_path)
    whole = folder.records()
    lines = tmp_path / "rounds.jsonl"
    saved = lines.read_bytes()
    lines.write_bytes(saved + b'{"half')
    assert folder.records() == whole and len(whole) > 1
    lines.write_bytes(saved[: len(saved) // 2])
    with pytest.raises(FormatError, match=r"rounds\.jsonl: shorter than state\.json says"):
        folder.records()
    lines.write_bytes(saved.replace(b"{", b"\xff", 1))
    with pytest.raises(FormatError, match=r"rounds\.jsonl: line 1: "):
        folder.records()
