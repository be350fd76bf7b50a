"""Profiles that ship with the package are read, complete and listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_profiles.errors import UsageError
from device_profiles.predict import calibrate
from device_profiles.shipped import shipped_names, shipped_profile
from profiler.cli import main

LISTED = (Path(__file__).resolve().parents[3] / "device_profiles" / "data" / "README.md").read_text()


def test_there_are_some() -> None:
    assert shipped_names()


@pytest.mark.parametrize("name", shipped_names())
def test_each_covers_its_model_and_says_how_it_was_measured(name: str) -> None:
    profile = shipped_profile(name)
    assert f"`{name}`" in LISTED
    assert {cost.block for cost in profile.costs} == set(range(1, (profile.blocks or 0) + 1))
    assert all(cost.fits and cost.conditions is not None for cost in profile.costs)
    if profile.runtime == "native":
        assert calibrate(profile.costs).base_bytes > 0


def test_one_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=shipped_names()[0]):
        shipped_profile("../golden/profile")


def test_they_are_shown_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", f"shipped:{shipped_names()[0]}", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["profiles"]) == 1
