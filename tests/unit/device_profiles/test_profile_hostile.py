"""Profiles are input from strangers: whatever they say, reading them is a profile or one clear line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.errors import FormatError
from device_profiles.files import read_json, sha256_of, to_json
from device_profiles.manifest import Manifest
from device_profiles.profile import DeviceProfile
from tests.support.mutations import mutated
from tests.support.structs import strategy_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
DOCUMENT = json.loads((GOLDEN / "profile.json").read_text())
PLAN = {
    "work": [0.0, 0.5],
    "parameters_bytes": [1, 1],
    "optimizer_state_bytes": [1, 1],
    "activations_bytes": [1, 1],
    "gradients_bytes": [1, 1],
    "temporaries_bytes": [1, 1],
    "touched_bytes": [5, 6],
}
TIMELINE = {"seconds": [0.0, 0.1], "resident_bytes": [5, 6], "step_started_seconds": 0.0, "step_ended_seconds": 0.1}


def _read(document: Any, folder: Path) -> DeviceProfile:
    path = folder / "profile.json"
    path.write_bytes(json.dumps(document).encode())
    return read_json(path, DeviceProfile)


def _changed(path: tuple[str | int, ...], value: Any) -> Any:
    document = copy.deepcopy(DOCUMENT)
    document["costs"][0] |= {"plan": copy.deepcopy(PLAN), "timeline": copy.deepcopy(TIMELINE)}
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


COST = ("costs", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("bundle_sha256",), "A" * 64, "bundle_sha256"),
        (("bundle_sha256",), "0" * 63, "bundle_sha256"),
        (("model",), "cnn\x1b[2J", "model holds characters"),
        (("model",), "x" * 401, "model is longer"),
        (("software",), {"numpy": "1\n2"}, "software: numpy holds characters"),
        (("blocks",), 0, "blocks is not above zero"),
        (("blocks",), 2, "block 3 of 2 does not exist"),
        (("measurement", "measured_at"), "yesterday", "measured_at is not an ISO 8601 date"),
        (("measurement", "threads"), 0, "threads is not above zero"),
        (("measurement", "warmup_steps"), -1, "warmup_steps is out of range"),
        (("device", "memory_available_bytes"), 1 << 50, "memory_available_bytes exceeds"),
        (("device", "memory_total_bytes"), -1, "memory_total_bytes is negative"),
        (("device", "memory_total_bytes"), 1 << 60, "larger than any memory"),
        (("device", "battery_percent"), 101.0, "battery_percent"),
        (("device", "cpu_quota"), 0.0, "cpu_quota"),
        (("device", "cpu_count"), 0, "cpu_count is not above zero"),
        (("device", "limit_bytes"), None, "limit_bytes is missing"),
        (("device", "gpus"), [{"name": "g", "memory_total_bytes": -5}], "gpus: memory_total_bytes is negative"),
        (("costs", 1, "program"), "grow-block1", "listed twice"),
        ((*COST, "block"), 0, "block is not above zero"),
        ((*COST, "arena_bytes"), 97_471, "its parts add up to"),
        ((*COST, "activations_bytes"), 90_000, "what lies in it adds up to"),
        ((*COST, "unexplained_bytes"), 3, "unexplained_bytes is not"),
        ((*COST, "fits"), False, "does not fit, but measured_peak_bytes is there"),
        ((*COST, "reason"), "because", "fits, but reason"),
        ((*COST, "measured_peak_bytes"), 1000, "unexplained_bytes is not"),
        ((*COST, "anonymous_bytes"), 1 << 40, "anonymous_bytes exceeds"),
        ((*COST, "measured_peak_minimum_bytes"), 1 << 40, "measured_peak_minimum_bytes exceeds"),
        ((*COST, "base_minimum_bytes"), 1 << 40, "base_minimum_bytes exceeds"),
        ((*COST, "step_seconds_minimum"), 5.0, "are not in order"),
        ((*COST, "prefix_seconds"), 5.0, "prefix_seconds exceeds"),
        ((*COST, "step_seconds_maximum"), 1e999, "profile.json"),
        ((*COST, "batch"), 0, "batch is not above zero"),
        ((*COST, "minor_faults"), -1, "minor_faults is out of range"),
        ((*COST, "conditions"), {"seconds": -1.0}, "conditions: seconds is not a duration"),
        ((*COST, "timeline", "seconds"), [0.2, 0.1], "do not rise"),
        ((*COST, "timeline", "seconds"), [0.1], "same length"),
        ((*COST, "timeline", "resident_bytes"), [-1, 1], "not a size"),
        ((*COST, "timeline", "step_ended_seconds"), None, "do not enclose"),
        ((*COST, "plan", "work"), [0.5, 0.1], "work does not rise"),
        ((*COST, "plan", "work"), [0.5], "same length"),
        ((*COST, "plan", "touched_bytes"), [1, 1 << 40], "does not fit the arena"),
        ((*COST, "plan", "gradients_bytes"), [1, 97_470], "at instruction 1 more is alive"),
    ],
)
def test_every_way_of_being_wrong_has_its_line(
    path: tuple[str | int, ...], value: Any, message: str, tmp_path: Path
) -> None:
    _read(_changed(("model",), "cnn"), tmp_path)
    with pytest.raises(FormatError, match=message) as caught:
        _read(_changed(path, value), tmp_path)
    assert "\n" not in str(caught.value) and "profile.json" in str(caught.value)


def test_a_micro_batch_above_the_batch_and_a_kill_without_a_reason_are_refused(tmp_path: Path) -> None:
    document = _changed((*COST, "batch"), 4)
    document["costs"][0]["micro_batch"] = 8
    with pytest.raises(FormatError, match="micro_batch exceeds batch"):
        _read(document, tmp_path)
    document = _changed((*COST, "fits"), False)
    document["costs"][0] |= {"measured_peak_bytes": None, "unexplained_bytes": None}
    with pytest.raises(FormatError, match="reason is missing"):
        _read(document, tmp_path)
    document["costs"][0] |= {"reason": "does not fit", "unexplained_bytes": 5}
    with pytest.raises(FormatError, match="without a measurement"):
        _read(document, tmp_path)


@settings(max_examples=25)
@given(strategy_of(DeviceProfile))
def test_a_profile_of_any_values_is_read_or_refused_with_one_line(profile: DeviceProfile) -> None:
    try:
        profile.check("any")
    except FormatError as error:
        assert str(error).startswith("any") and "\n" not in str(error)


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 62))
def test_a_mutated_profile_is_read_or_refused_with_one_line(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.json"
    path.write_bytes(mutated((GOLDEN / "profile.json").read_bytes(), seed))
    try:
        profile = read_json(path, DeviceProfile)
    except FormatError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert to_json(profile)


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deeply_nested_input_is_refused(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_bytes(b'{"device":' + b"[" * depth)
    with pytest.raises(FormatError, match=r"deep\.json"):
        read_json(path, DeviceProfile)


def _of_golden_bundle(**changes: Any) -> tuple[DeviceProfile, Manifest, str]:
    manifest = read_json(GOLDEN / "manifest.json", Manifest)
    digest = sha256_of(GOLDEN / "manifest.json")
    document = copy.deepcopy(DOCUMENT) | {"bundle_sha256": digest, "blocks": 3, "model": manifest.model.name}
    for cost in document["costs"]:
        memory = manifest.program(cost["program"]).memory
        parts = {name: getattr(memory, f"{name}_bytes") for name in ("arena", "frozen", "staging", "parameters")}
        parts |= {name: getattr(memory, f"{name}_bytes") for name in ("gradients", "optimizer_state", "activations")}
        cost |= {f"{name}_bytes": value for name, value in parts.items()} | {
            "temporaries_bytes": memory.temporaries_bytes
        }
        whole = cost["base_bytes"] + cost["workspace_bytes"]
        whole += memory.arena_bytes + memory.frozen_bytes + memory.staging_bytes
        cost |= {"predicted_peak_bytes": whole, "unexplained_bytes": cost["measured_peak_bytes"] - whole}
    document |= changes
    import msgspec

    return msgspec.convert(document, DeviceProfile), manifest, digest


def test_a_profile_is_held_against_the_bundle_it_names() -> None:
    profile, manifest, digest = _of_golden_bundle()
    profile.check("good")
    profile.check_against(manifest, digest, "good", every_block=True)
    with pytest.raises(FormatError, match="another bundle"):
        profile.check_against(manifest, "0" * 64, "p")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "the bundle's is"),
        ({"blocks": 4}, "the bundle has 3"),
        ({"costs": []}, "no training program of block 1, 2, 3"),
    ],
)
def test_a_profile_that_does_not_cover_its_bundle_is_refused(changes: dict[str, Any], message: str) -> None:
    profile, manifest, digest = _of_golden_bundle(**changes)
    with pytest.raises(FormatError, match=message):
        profile.check_against(manifest, digest, "p", every_block=True)


def test_a_cost_that_differs_from_the_plan_or_is_of_no_program_is_refused() -> None:
    for change, message in (
        ({"arena_bytes": 1}, "differs from the bundle's plan"),
        ({"program": "x"}, "not a program"),
    ):
        profile, manifest, digest = _of_golden_bundle()
        document = json.loads(to_json(profile))
        document["costs"][0] |= change
        import msgspec

        with pytest.raises(FormatError, match=message):
            msgspec.convert(document, DeviceProfile).check_against(manifest, digest, "p")
