"""What another method, engine, data source or model needs: the lists of docs/contributing.md are true.

Each is held against one that is there: the files that say its name are those that the guide lists, and its own.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("device_profiles", "edge_runtime", "profiler", "server")
MOST_FILES = 3
"""Beside its own: who has to touch more has no room for it."""
GUIDE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")


def _files_that_say(name: str) -> set[str]:
    literal = re.compile(rf"[\"']{name}[\"']")
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix() for path in files if literal.search(path.read_text(encoding="utf-8"))}


def _paragraph(title: str) -> str:
    return GUIDE.partition(f"- **{title}**")[2].partition("\n- **")[0]


@pytest.mark.parametrize(
    ("title", "name", "own"),
    [
        ("Another server optimizer", "fedyogi", "server/averaging/optimizers"),
        ("Another method", "heterofl", "server/methods"),
        ("Another mean of updates", "trimmed_mean", "server/averaging/means.py"),
        ("Another data source", "cifar100", "edge_runtime/device/data"),
        ("Another built-in model", "vgg16_bn", "edge_runtime/export/models"),
        ("Another engine", "simulation", "server/engines"),
    ],
)
def test_what_is_there_is_named_in_the_listed_files_and_in_its_own(title: str, name: str, own: str) -> None:
    text = _paragraph(title)
    listed = {found for found in re.findall(r"`([\w/]+\.py)`", text) if "/" in found}
    assert 1 <= len(listed) <= MOST_FILES and all((ROOT / file).is_file() for file in listed)
    assert f"`{own}`" in text
    for file in _files_that_say(name) - listed:
        assert file.startswith(f"{own}/"), file
