"""The report of runs: finished ones, and ones that go on."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("matplotlib", reason="figures are drawn with it")

from device_profiles.errors import FormatError
from device_profiles.files import write_json
from server.cli import cli
from server.report.page import report_page
from server.report.runs import read_run
from server.run_state import FLEET_NAME
from tests.support.fake_run import FakeEngine, fleet_of, run


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
    rounds, accuracies = read.accuracies()
    assert rounds == list(range(1, 28)) and len(accuracies) == 27


def test_the_page_has_every_figure_as_sound_svg(folder: Path) -> None:
    page = report_page([read_run(folder)])
    pictures = page.split("<svg")[1:]
    assert len(pictures) == 6
    for picture in pictures:
        ElementTree.fromstring("<svg" + picture.split("</svg>")[0] + "</svg>")
    for words in ("not finished, 27 rounds", "effective movement", "threshold", "grow 3", "clients with work"):
        assert words in page


def test_several_runs_are_compared_in_one_table(folder: Path) -> None:
    answer = CliRunner().invoke(cli, ["report", str(folder), str(folder), "--json"])
    assert answer.exit_code == 0
    assert [known["rounds"] for known in json.loads(answer.stdout)["runs"]] == [27, 27]
    table = CliRunner().invoke(cli, ["report", str(folder), str(folder)]).stdout
    assert len(table.splitlines()) == 3


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no run here"):
        read_run(tmp_path)
