"""Profiles: parts that add up, kills that are results, interruptions that lose nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_profiles.errors import ExecutionError, FormatError, UsageError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest, Program
from device_profiles.profile import DeviceProfile
from edge_runtime.device.limits.control_groups import memory_limit
from profiler.cli import main
from profiler.facts.device_facts import describe_device
from profiler.measure.breakdown import cost_of
from profiler.measure.program import Observation
from profiler.profiling.profile import ProfileRequest, profile_bundle
from profiler.report.table import profile_table

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
REPORT = {
    "base_bytes": 30 << 20,
    "measured_peak_bytes": 33 << 20,
    "step_seconds_median": 0.5,
    "step_seconds_minimum": 0.4,
    "step_seconds_maximum": 0.9,
    "prefix_seconds": 0.1,
    "instruction_set": "avx2",
}


@pytest.fixture
def program() -> Program:
    return read_json(GOLDEN / "manifest.json", Manifest).programs[0]


def _not_asked() -> int:
    raise AssertionError("a process that lived has told its base")


def _lived(**changes: float) -> Observation:
    return Observation(report={**REPORT, **changes}, limit_kind="cgroup-v1", reason=None)


def test_the_parts_of_the_promise_add_up_and_the_rest_is_stated(program: Program) -> None:
    cost = cost_of(program, [_lived(), _lived(measured_peak_bytes=34 << 20)], base_bytes=_not_asked, threads=2)
    parts = cost.base_bytes + cost.arena_bytes + cost.frozen_bytes + cost.workspace_bytes + cost.staging_bytes
    assert parts == cost.predicted_peak_bytes
    assert cost.measured_peak_bytes == 34 << 20
    assert cost.unexplained_bytes == (34 << 20) - cost.predicted_peak_bytes
    assert cost.workspace_bytes == 2 * program.memory.workspace_bytes_per_thread


def test_a_kill_is_recorded_as_does_not_fit(program: Program) -> None:
    killed = Observation(report=None, limit_kind="cgroup-v1", reason="does not fit: killed at the limit")
    cost = cost_of(program, [_lived(), killed], base_bytes=_not_asked, threads=1)
    assert not cost.fits and cost.measured_peak_bytes is None and cost.reason == killed.reason


def test_a_program_whose_process_never_lived_has_the_measured_base(program: Program) -> None:
    killed = Observation(report=None, limit_kind="rlimit", reason="does not fit: no memory left")
    cost = cost_of(program, [killed], base_bytes=lambda: 29 << 20, threads=1)
    assert cost.base_bytes == 29 << 20
    assert cost.predicted_peak_bytes == (29 << 20) + program.memory.total_bytes(1)
    assert not cost.fits and cost.unexplained_bytes is None and cost.step_seconds_median is None


def test_seconds_are_the_median_and_range_of_the_repetitions(program: Program) -> None:
    runs = [_lived(step_seconds_median=m, step_seconds_minimum=m / 2, step_seconds_maximum=m * 2) for m in (3, 1, 2)]
    cost = cost_of(program, runs, base_bytes=_not_asked, threads=1)
    assert (cost.step_seconds_median, cost.step_seconds_minimum, cost.step_seconds_maximum) == (2, 0.5, 6)


def test_an_evaluation_reports_no_seconds_and_none_are_invented(program: Program) -> None:
    silent = Observation(report={"base_bytes": 1 << 20, "measured_peak_bytes": 9 << 20}, limit_kind="none", reason=None)
    cost = cost_of(program, [silent], base_bytes=_not_asked, threads=1)
    assert cost.fits and cost.step_seconds_median is None and cost.prefix_seconds is None


def test_unknown_facts_are_none_and_never_a_guess(tmp_path: Path) -> None:
    device = describe_device("box", limit_bytes=None, limit_kind="none", root=tmp_path)
    assert device.cpu_model is device.memory_total_bytes is device.memory_available_bytes is None
    assert device.battery_percent is None


def test_facts_are_read_where_the_system_tells(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  1000 kB\nMemAvailable: 600 kB\n")
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Example CPU\n")
    supply = tmp_path / "sys" / "class" / "power_supply" / "BAT0"
    supply.mkdir(parents=True)
    (supply / "type").write_text("Battery\n")
    (supply / "capacity").write_text("71\n")
    device = describe_device("box", limit_bytes=1, limit_kind="rlimit", root=tmp_path)
    assert (device.cpu_model, device.memory_total_bytes, device.battery_percent) == ("Example CPU", 1024_000, 71.0)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {}, None),
        ("0::/box/inner", {"box/memory.max": "700", "box/inner/memory.max": "max"}, (700, "cgroup-v2")),
        ("0::/box", {"box/memory.max": "700", "memory.max": "300"}, (300, "cgroup-v2")),
        ("4:memory:/box", {"memory/box/memory.limit_in_bytes": "900"}, (900, "cgroup-v1")),
        ("4:memory:/box", {"memory/box/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("9:cpu,memory:/\n0::/", {"memory/memory.limit_in_bytes": "800"}, (800, "cgroup-v1")),
    ],
)
def test_the_limit_that_the_profiler_itself_lives_under_is_found(
    groups: str, files: dict[str, str], expected: tuple[int, str] | None, tmp_path: Path
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = memory_limit(tmp_path)
    assert (None if found is None else (found.size_bytes, found.kind)) == expected


class _FakeMeter:
    """Lives through the first `lives` measurements, then fails as an interrupted profiler would."""

    def __init__(self, lives: int = 99) -> None:
        self.lives = lives
        self.measured: list[str] = []

    def measure(self, program: Program) -> Observation:
        if len(self.measured) == self.lives:
            raise ExecutionError("interrupted")
        self.measured.append(program.name)
        return _lived()

    def base_bytes(self) -> int:
        return _not_asked()

    def plan(self, program: Program) -> None:
        return None


def _bundle(folder: Path) -> Path:
    """The golden manifest as a bundle whose files have the sizes it states; their content is never opened here."""
    manifest = read_json(GOLDEN / "manifest.json", Manifest)
    for entry in manifest.files:
        path = folder / "bundle" / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(entry.size_bytes))
    (folder / "bundle" / "manifest.json").write_bytes((GOLDEN / "manifest.json").read_bytes())
    return folder / "bundle"


def _grow_programs() -> list[str]:
    return [p.name for p in read_json(GOLDEN / "manifest.json", Manifest).programs if p.work.kind == "grow"]


def test_an_interrupted_profile_goes_on_where_it_stopped(tmp_path: Path) -> None:
    names = _grow_programs()
    request = ProfileRequest(
        bundle=_bundle(tmp_path), output=tmp_path / "profile.json", name="box", limit_bytes=1 << 30
    )
    with pytest.raises(ExecutionError):
        profile_bundle(request, meter=_FakeMeter(len(names) - 1))
    meter = _FakeMeter()
    profile = profile_bundle(request, meter=meter)
    assert meter.measured == names[-1:]
    assert [cost.program for cost in profile.costs] == names
    assert names[-1] in profile_table(profile)
    assert profile == read_json(request.output, DeviceProfile)
    # Nothing is left to measure, and what earlier processes told is kept.
    again = profile_bundle(request, meter=_FakeMeter(0))
    assert again.software["instruction_set"] == "avx2" and again.device.limit_kind == "cgroup-v1"


@pytest.mark.parametrize("change", [{"threads": 2}, {"name": "other"}, {"steps": 9}, {"limit_bytes": 2 << 30}])
def test_a_profile_measured_another_way_is_started_afresh(tmp_path: Path, change: dict[str, Any]) -> None:
    request = ProfileRequest(
        bundle=_bundle(tmp_path), output=tmp_path / "profile.json", name="box", limit_bytes=1 << 30
    )
    profile_bundle(request, meter=_FakeMeter())
    meter = _FakeMeter()
    profile_bundle(replace(request, **change), meter=meter)
    assert meter.measured == _grow_programs()


def test_the_profile_of_another_bundle_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    request = ProfileRequest(bundle=_bundle(tmp_path), output=output, name="box", limit_bytes=1 << 30)
    profile_bundle(request, meter=_FakeMeter())
    before = output.read_bytes()
    manifest = tmp_path / "bundle" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    meter = _FakeMeter()
    with pytest.raises(UsageError, match=r"-o \S+profile\.json: is the profile of another bundle .*another file"):
        profile_bundle(request, meter=meter)
    assert output.read_bytes() == before and meter.measured == []


def test_an_output_that_is_no_profile_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "notes.txt"
    output.write_text("not a profile")
    request = ProfileRequest(bundle=_bundle(tmp_path), output=output, name="box")
    with pytest.raises(FormatError, match=r"-o .*notes\.txt"):
        profile_bundle(request, meter=_FakeMeter())
    assert output.read_text() == "not a profile"


def test_a_repetition_that_was_killed_ends_the_repetitions(tmp_path: Path) -> None:
    class Killed(_FakeMeter):
        def measure(self, program: Program) -> Observation:
            super().measure(program)
            return _lived() if len(self.measured) % 2 else Observation(report=None, limit_kind="rlimit", reason="gone")

    request = ProfileRequest(
        bundle=_bundle(tmp_path), output=tmp_path / "profile.json", name="box", block=1, repetitions=5
    )
    meter = Killed()
    (cost,) = profile_bundle(request, meter=meter).costs
    assert len(meter.measured) == 2
    assert not cost.fits and cost.reason == "gone"


def test_a_block_that_is_not_there_is_answered_with_the_programs(tmp_path: Path) -> None:
    request = ProfileRequest(bundle=_bundle(tmp_path), output=tmp_path / "profile.json", name="box", block=77)
    with pytest.raises(UsageError, match=r"--block.*there are: grow-block1"):
        profile_bundle(request, meter=_FakeMeter())
    assert not request.output.exists()


def test_a_peak_above_the_limit_is_marked_in_the_table() -> None:
    profile = read_json(GOLDEN / "profile.json", DeviceProfile)
    assert "above the limit" not in profile_table(profile)
    low = msgspec.structs.replace(profile, device=msgspec.structs.replace(profile.device, limit_bytes=1 << 20))
    assert "above the limit" in profile_table(low)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere"], 2, "not a bundle folder"),
        (["nowhere", "--limit", "many"], 2, "--limit"),
        (["nowhere", "--steps", "0"], 2, "--steps"),
        (["show", "nowhere.json"], 2, "nowhere.json"),
        (["show"], 2, "PROFILES"),
    ],
)
def test_a_users_mistake_is_one_line(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    output, errors = capsys.readouterr()
    assert output == "" and errors.count("\n") == 1
    assert errors.startswith("profl-profile: error: ") and said in errors


def test_show_prints_one_object_with_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    golden = str(GOLDEN / "profile.json")
    assert main(["show", golden, golden, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [profile["device"]["name"] for profile in document["profiles"]] == ["golden", "golden"]
