"""Profiles side by side: differences are marked, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import UsageError
from device_profiles.files import read_json, write_json
from device_profiles.profile import DeviceProfile
from profiler.cli import main
from profiler.report.compare import comparison_of, comparison_table

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
PROFILE = read_json(GOLDEN / "profile.json", DeviceProfile)


def _with_first_cost(**changes: object) -> DeviceProfile:
    first = msgspec.structs.replace(PROFILE.costs[0], **changes)
    return msgspec.structs.replace(PROFILE, costs=(first, *PROFILE.costs[1:]))


def test_the_same_profile_twice_has_no_mark() -> None:
    found = comparison_of([PROFILE, PROFILE], threshold=0.02)
    assert found.names == ("golden", "golden (2)") and found.differences == ()
    assert not any(c.peak_marked or c.step_marked or c.plan_marked for row in found.rows for c in row.cells)
    assert "*" not in comparison_table(found).partition("\n")[2]


@pytest.mark.parametrize(
    ("changes", "marks"),
    [
        ({"measured_peak_bytes": 40_000_000}, (True, False, False)),
        ({"step_seconds_median": 0.0003}, (False, True, False)),
        ({"step_seconds_median": 0.00026}, (False, False, False)),
        ({"arena_bytes": 97_473}, (False, False, True)),
        ({"fits": False, "measured_peak_bytes": None}, (True, False, False)),
    ],
)
def test_what_differs_from_the_first_is_marked(changes: dict[str, object], marks: tuple[bool, bool, bool]) -> None:
    found = comparison_of([PROFILE, _with_first_cost(**changes)], threshold=0.02)
    cell = found.rows[0].cells[1]
    assert (cell.peak_marked, cell.step_marked, cell.plan_marked) == marks
    assert not any(c.peak_marked or c.step_marked or c.plan_marked for row in found.rows[1:] for c in row.cells)


def test_versions_devices_and_missing_programs_are_told() -> None:
    other = msgspec.structs.replace(
        PROFILE,
        device=msgspec.structs.replace(PROFILE.device, name="board", cpu_model="other"),
        software={"python": "3.12", "numpy": "2.4"},
        costs=PROFILE.costs[1:],
    )
    found = comparison_of([PROFILE, other], threshold=0.02)
    table = comparison_table(found)
    assert "processor: example | other" in table and "python: 3.11 | 3.12" in table
    assert "numpy: unknown | 2.4" in table
    assert found.rows[0].cells[1].fits is None


def test_profiles_of_different_models_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="different models"):
        comparison_of([PROFILE, msgspec.structs.replace(PROFILE, model="vgg")], threshold=0.02)


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "b.json", _with_first_cost(step_seconds_median=None, step_seconds_minimum=None))
    assert main(["compare", str(GOLDEN / "profile.json"), str(tmp_path / "b.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["program"] for row in document["rows"]] == [cost.program for cost in PROFILE.costs]
    assert main(["compare", str(GOLDEN / "profile.json")]) == 2
    assert "two or more" in capsys.readouterr().err
