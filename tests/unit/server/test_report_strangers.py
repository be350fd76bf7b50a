"""Nothing that a run's folder or a data set says is more than text on the server's pages."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import msgspec
import pytest

pytest.importorskip("matplotlib", reason="figures are drawn with it")

from server.data.split_report import ClientPart, SplitReport
from server.planner.whole_network import WholeNetwork
from server.report.page import report_page
from server.report.runs import Run, read_run
from server.report.split_picture import draw_split
from server.rounds.run_state import FLEET_NAME
from server.rounds.summary import ClientSummary, StepSummary, Summary
from tests.support.fake_run import FakeEngine, fleet_of, run
from tests.support.strangers import assert_harmless, evil, of_strangers


def _summary() -> Summary:
    step = StepSummary(stage="grow", block=1, rounds=2, froze_because="slope", accuracy=0.5, participation=1.0)
    client = ClientSummary(
        client="a",
        limit_bytes=1 << 20,
        limit_kind="cgroup",
        predicted_peak_bytes=1 << 20,
        measured_peak_bytes=1 << 20,
        oom_kills=0,
        blocks=(1,),
        rounds=2,
        failures=0,
    )
    whole = WholeNetwork(
        native_devices=None,
        native_peak_bytes=None,
        pytorch_devices=None,
        pytorch_peak_bytes=None,
        native_failure="no",
        pytorch_failure="no",
    )
    return Summary(
        model="cnn",
        method="profl",
        data="digits",
        accuracy=0.5,
        rounds=2,
        steps=(step,),
        clients=(client,),
        participation=1.0,
        bytes_down=1,
        bytes_up=1,
        seconds=1.0,
        whole_network=whole,
        model_file="model",
        finished=True,
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a round that was given up, one that was repeated, and one with rejected updates."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    run(folder, FakeEngine(), rounds=4)
    (folder / FLEET_NAME).write_bytes(msgspec.json.encode(fleet_of(rounds=4)))
    read = read_run(folder)
    rejected = msgspec.structs.replace(
        read.rounds[0], rejected={"a": "odd"}, rejected_before=({"b": "odd"},), repeated=read.rounds[0].clients
    )
    return dataclasses.replace(read, rounds=(rejected, *read.rounds[1:]), given_up=(read.rounds[-1],))


def _of_strangers(sound: Run, summary: Summary | None) -> Run:
    return Run(
        name=evil("name"),
        fleet=of_strangers(sound.fleet),
        rounds=tuple(of_strangers(record) for record in sound.rounds),
        summary=None if summary is None else of_strangers(summary),
        given_up=tuple(of_strangers(record) for record in sound.given_up),
    )


def test_every_string_of_a_finished_run_is_text(sound: Run) -> None:
    parsed = assert_harmless(report_page([_of_strangers(sound, _summary())]))
    for place in ("steps.stage", "steps.froze_because", "clients.client", "data", "model_file"):
        assert parsed.shows(f"Summary.{place}"), place
    assert parsed.shows("Summary.whole_network.native_failure") and parsed.shows("RoundRecord.stage")
    assert parsed.shows("name")


def test_every_string_of_runs_that_go_on_is_text(sound: Run) -> None:
    parsed = assert_harmless(report_page([_of_strangers(sound, None), sound, _of_strangers(sound, _summary())]))
    assert parsed.shows("name") and parsed.shows("RoundRecord.stage")
    assert sum(evil("name") == text for text in parsed.texts) == 6  # three legends name both


def test_a_name_is_shown_as_it_is_but_for_characters_that_no_page_has(sound: Run) -> None:
    names = ["_first", "$a$ $b", "back\\slash", "bell\x07 and \udcff"]
    page = report_page([dataclasses.replace(sound, name=name) for name in names])
    for name in ("_first", "$a$ $b", "back\\slash", "bell\ufffd and \ufffd"):
        assert page.count(f">{name}</text>") == 3
    assert "\x07" not in page and page.encode("utf-8")


def test_a_page_is_the_same_every_time(sound: Run) -> None:
    assert report_page([sound]) == report_page([sound])


def test_every_string_of_a_split_is_text() -> None:
    part = ClientPart(client="a", natural="b", examples=7, class_counts=(3, 4), distance=0.1)
    report = SplitReport(
        source="npz:all.npz",
        split="iid",
        setting="at random",
        seed=1,
        examples=7,
        used=7,
        classes=2,
        distance_mean=0.1,
        clients=(part,),
    )
    drawn = draw_split(of_strangers(report))
    parsed = assert_harmless(drawn)
    for place in ("source", "clients.client", "clients.natural"):
        assert parsed.shows(f"SplitReport.{place}"), place
    ElementTree.fromstring(draw_split(msgspec.structs.replace(report, source="a\x00\x1b\x85\ufffe")))
