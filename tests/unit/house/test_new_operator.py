"""docs/contributing.md lists the files that a new operator needs: those that the operators of this release are in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "contributing.md").read_text()
FOLDERS = ("device_profiles", "docs", "edge_runtime", "profiler", "server", "tests", "tools")
ENDINGS = {".py", ".cpp", ".h", ".in", ".txt", ".md"}
OPERATORS = (
    "batch_norm_train",
    "embedding_weight_grad",
    "global_average_pool_backward",
    "layer_norm_backward",
    "resample2d_backward",
    "softmax_backward",
    "sum_to",
)
"""From several families, with names that mean nothing else."""


def _listed() -> list[str]:
    """The places of the list: files, and folders with a slash behind them."""
    section = GUIDE.partition("- **A new operator**")[2].partition("\n\n")[0]
    return re.findall(r"^  - `([\w./]+)`:", section, re.MULTILINE)


def _files() -> list[Path]:
    own = {Path(__file__)}
    everywhere = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")))
    return [path for path in everywhere if path.suffix in ENDINGS and path not in own]


NAMED = {
    operator: [
        path.relative_to(ROOT).as_posix()
        for path, text in [(path, path.read_text(encoding="utf-8")) for path in _files()]
        if re.search(rf"\b{operator}\b", text)
    ]
    for operator in OPERATORS
}


def test_the_list_is_short_and_its_places_are_there() -> None:
    assert 1 < len(_listed()) <= 5
    for place in _listed():
        assert (ROOT / place).is_dir() if place.endswith("/") else (ROOT / place).is_file(), place


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("place", _listed())
def test_an_operator_is_in_every_place_of_the_list(operator: str, place: str) -> None:
    assert [file for file in NAMED[operator] if file.startswith(place)], f"{operator} is not in {place}"


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_is_in_no_other_file(operator: str) -> None:
    places = (*_listed(), "docs/operators.md")  # which is made from the table
    assert [file for file in NAMED[operator] if not file.startswith(places)] == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_has_one_file_of_kernels_one_module_of_the_exporter_and_a_row(operator: str) -> None:
    for folder in ("edge_runtime/csrc/", "edge_runtime/export/", "device_profiles/"):
        assert len([file for file in NAMED[operator] if file.startswith(folder)]) == 1, folder
