"""Ratios are taken within pairs, incomplete pairs do not count, and table and picture show every cell."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("click", reason="the tools are commands")

from device_profiles.files import read_json, write_json
from device_profiles.profile import Device
from tools.bench.picture import draw
from tools.bench.results import BlockFacts, Results, Run, RuntimeName, Settings, TrainPeak
from tools.bench.tables import markdown, rows, text

GFLOP = 10**9


def _run(runtime: RuntimeName, block: int, pair: int, seconds: float, megabytes: int = 100) -> Run:
    return Run(
        runtime=runtime,
        block=block,
        threads=1,
        pair=pair,
        step_seconds_median=seconds,
        measured_peak_bytes=megabytes << 20,
        loss_first=2.3,
        loss_last=2.0,
    )


@pytest.fixture
def results() -> Results:
    settings = Settings(
        model="net", options="", batch=32, warmup=1, steps=5, train_options="", peers=("pytorch", "onnxruntime")
    )
    found = Results(
        settings=settings,
        device=Device(name="bench", architecture="x86_64", kernel="6", cpu_model="A & B", cpu_count=2),
        software={"torch": "2.13.0"},
        runtimes=("ours", "pytorch"),
        left_out={"onnxruntime": "it is not here"},
        sgemm_gflops={1: 100.0},
        blocks=[BlockFacts(index=i, units="0-1", operations=20 * GFLOP, prefix_operations=0) for i in (1, 2)],
    )
    # The second pair of block 1 ran while the machine was twice as slow: its ratio is the same.
    for pair, seconds in ((1, 0.5), (2, 1.0), (3, 0.5)):
        found.runs += [_run("ours", 1, pair, seconds), _run("pytorch", 1, pair, 2 * seconds, 500)]
    found.runs += [_run("ours", 2, 1, 0.8), _run("pytorch", 2, 1, 0.4), _run("ours", 2, 2, 99.0)]
    found.train_peaks.append(TrainPeak(block=1, threads=1, measured_peak_bytes=101 << 20))
    return found


def test_a_ratio_is_the_median_over_pairs(results: Results) -> None:
    cell = results.cell("pytorch", 1, 1)
    assert cell is not None
    assert (cell.step_seconds, cell.ours_to_this, cell.ours_to_this_least, cell.ours_to_this_most) == (1, 0.5, 0.5, 0.5)


def test_a_pair_without_its_other_half_does_not_count(results: Results) -> None:
    assert results.whole_pairs(2, 1) == {1}
    cell = results.cell("ours", 2, 1)
    assert cell is not None and cell.step_seconds == 0.8


def test_the_geometric_mean_is_over_the_blocks(results: Results) -> None:
    assert results.geometric_mean("pytorch", 1) == pytest.approx(math.sqrt(0.5 * 2.0))


def test_the_table_has_the_floor_and_the_peak_of_train(results: Results) -> None:
    head, first, second = rows(results, 1)
    named = dict(zip(head, first, strict=True))
    assert named["floor ms"] == "200.0" and named["profl-edge/floor"] == "2.50"
    assert named["profl-edge MB"] == "101.0" and named["PyTorch MB"] == "500.0"
    assert second[0] == "2"


def test_text_and_markdown_say_what_was_left_out_and_why(results: Results) -> None:
    for shown in (text(results), markdown(results)):
        assert "ONNX Runtime was left out: it is not here" in shown
    assert sum(line.startswith("| ") for line in markdown(results).splitlines()) == 4


def test_results_survive_their_file(results: Results, tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results)
    assert read_json(tmp_path / "results.json", Results) == results


def test_the_picture_is_well_formed_and_has_a_bar_for_every_cell(results: Results, tmp_path: Path) -> None:
    draw(results, tmp_path / "picture.svg")
    root = ElementTree.fromstring((tmp_path / "picture.svg").read_text())
    classes = [element.get("class") for element in root.iter() if element.get("class")]
    # Two blocks, in a panel of time and one of memory; the floor only in the first.
    assert {name: classes.count(name) for name in set(classes)} == {"ours": 4, "pytorch": 4, "floor": 2}
    bars = [float(e.get("height", "0")) for e in root.iter() if e.get("class") == "ours"]
    assert min(bars) > 0
