"""The C++ sources: folders for families, arrows between them that run one way, files of a size that can be read."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from device_profiles.operators import table

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "edge_runtime" / "csrc"
FILES = {path.relative_to(SOURCES).as_posix(): path.read_text() for path in sorted(SOURCES.rglob("*.*"))}
MOST_LINES = 300
MADE = {"operators/operator_list.h"}
"""Made by CMake from the table of operators."""


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _included(text: str) -> list[str]:
    return re.findall(r'^#include "(.+)"$', text, re.MULTILINE)


def _arrows() -> dict[str, set[str]]:
    """The other folders that the files of each folder include."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for file, text in FILES.items():
        arrows[_folder(file)] |= {_folder(name) for name in _included(text)} - {_folder(file)}
    return arrows


def _order(arrows: dict[str, set[str]]) -> list[str]:
    """The folders, each behind all that it includes; fewer where some include each other in a ring."""
    order: list[str] = []
    while free := [name for name in arrows if name not in order and arrows[name] <= set(order)]:
        order += free
    return order


def _parts() -> list[str]:
    """The parts in the order of docs/architecture.md; what is only for tests and the supervisor are not among them."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("`edge_runtime/csrc` has eight parts")[2]
    return re.findall(r"^\| `(\w+)/` \|", text.partition("A family of kernels")[0], re.MULTILINE)


def _documented() -> dict[str, set[str]]:
    """The table of families in docs/architecture.md: what each folder includes beside `common`."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("| folder | what it holds | includes |")[2]
    rows = [line.strip("|").split("|") for line in text.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): set(re.findall(r"`([\w/]+)`", row[2])) for row in rows}


def test_every_included_file_is_there() -> None:
    assert {name for text in FILES.values() for name in _included(text)} - set(FILES) == MADE


def test_no_folder_is_included_by_a_folder_that_it_includes() -> None:
    arrows = _arrows()
    assert sorted(_order(arrows)) == sorted(arrows)


def test_a_ring_of_folders_is_found() -> None:
    assert _order({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["d"]


def test_parts_include_only_parts_before_them() -> None:
    parts = _parts()
    assert len(parts) == 8
    for folder, included in _arrows().items():
        part = folder.partition("/")[0]
        reached = {name.partition("/")[0] for name in included} - {part}
        if part in parts:
            assert reached <= set(parts[: parts.index(part)]), part
    assert {name.partition("/")[0] for name in FILES} == {*parts, "supervisor", "testing"}


def test_the_folders_of_the_runner_are_those_that_are_documented() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("| `csrc/runner` | |")[2]
    documented = set(re.findall(r"^\| `(\w+)` \|", text.partition("\n\n")[0], re.MULTILINE))
    assert {file.split("/")[1] for file in FILES if file.startswith("runner/") and file.count("/") == 2} == documented


def test_families_include_each_other_as_is_documented() -> None:
    families = {
        folder.removeprefix("kernels/"): {name for name in included if name.startswith("kernels/")}
        for folder, included in _arrows().items()
        if folder.startswith("kernels/")
    }
    assert {
        family: {name.removeprefix("kernels/") for name in included} - {"common"}
        for family, included in families.items()
    } == _documented()
    assert families["common"] == set()


def test_a_family_has_two_to_ten_files() -> None:
    counts: dict[str, int] = defaultdict(int)
    for file in FILES:
        if file.startswith("kernels/"):
            counts[_folder(file)] += 1
    assert {folder: count for folder, count in counts.items() if not 2 <= count <= 10} == {}
    assert "kernels" not in counts


def test_no_file_is_too_long_to_be_read() -> None:
    assert [file for file, text in FILES.items() if len(text.splitlines()) > MOST_LINES] == []


def test_every_operator_is_a_function_of_one_file_and_no_other_function_is_a_kernel() -> None:
    kernels = [
        name
        for file, text in FILES.items()
        if file.startswith("kernels/")
        for name in re.findall(r"^void (\w+)\(Context&(?: context)?, Stack stack\) \{", text, re.MULTILINE)
    ]
    assert sorted(kernels) == sorted(table().operators)
