"""The table that compares `planned` with the other methods of all studies."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the studies draw with it")

from device_profiles.errors import FormatError
from tools.experiments.__main__ import PUBLISHED
from tools.experiments.overview import LIMITLESS, PAGE, Compared, overview, write_overview


def test_the_table_of_all_studies_is_that_of_the_published_results(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_bytes(PAGE.read_bytes())
    (tmp_path / "results").symlink_to(PUBLISHED.resolve())
    write_overview(page)
    assert page.read_text() == PAGE.read_text()  # else: python -m tools.experiments.overview


def test_methods_are_compared_on_the_seeds_that_both_have() -> None:
    methods = {
        "Planned": {0: 80.0, 1: 90.0},
        "AllSmall": {1: 86.0, 2: 10.0},
        "FedPMT": {},
        LIMITLESS: {0: 81.0, 1: 92.0},
    }
    row = Compared(title="A fleet", methods=methods)
    assert row.best == ("AllSmall", 4.0, 1)
    _, _, line, *_ = overview([row, Compared(title="Not run", methods={"AllSmall": {0: 1.0}})])
    assert line.startswith("| A fleet | **85.0** (2 seeds) |")
    assert line.endswith("| 86.5 | +4.0 (AllSmall, 1 seed) | -1.5 |") and "| 48.0 |" in line


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    methods = {"Planned": {0: 80.0}, "AllSmall": {0: 80.02}, LIMITLESS: {0: 79.98}}
    _, _, line, *_ = overview([Compared(title="A fleet", methods=methods)])
    assert line.endswith("| 0.0 (AllSmall) | 0.0 |")


def test_the_table_says_where_nobody_could_reach_the_goal() -> None:
    def row(fedavg: float) -> Compared:
        return Compared(title="", methods={"Planned": {0: 80.0}, "AllSmall": {0: 78.0}, LIMITLESS: {0: fedavg}})

    without = Compared(title="", methods={"Planned": {0: 80.0}, "AllSmall": {0: 78.0}})
    *_, said = overview([row(80.9), row(81.5), row(77.0), without])
    assert said.startswith("In 2 of 3 rows not even FedAvg without limits is 3 points above")


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text("nothing")
    with pytest.raises(FormatError, match="needs one line '<!-- overview -->'"):
        write_overview(tmp_path / "results.md")
