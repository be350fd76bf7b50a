"""Strict reading, atomic writing, golden files and schemas of the vocabulary."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_profiles.errors import FormatError, UsageError
from device_profiles.files import (
    atomic_file,
    check_output_file,
    check_place,
    read_json,
    remove_unfinished,
    to_json,
    write_json,
)
from device_profiles.manifest import Manifest
from device_profiles.model import Block, Partition
from device_profiles.plan import Plan
from device_profiles.profile import DeviceProfile
from device_profiles.update import UpdateMetadata
from tools.generate_schemas import schema_of

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"
KINDS = {"manifest": Manifest, "profile": DeviceProfile, "plan": Plan}


@pytest.mark.parametrize("name", KINDS)
def test_golden_files_are_read_and_written_back_byte_for_byte(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    assert to_json(read_json(path, KINDS[name])) == path.read_bytes()


@pytest.mark.parametrize("name", KINDS)
def test_the_schemas_in_the_docs_are_current_and_hold_for_the_golden_files(name: str) -> None:
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
    assert schema == json.loads(json.dumps(schema_of(KINDS[name])))
    jsonschema.validate(json.loads((GOLDEN / f"{name}.json").read_text()), schema)


@pytest.mark.parametrize("name", KINDS)
def test_an_unknown_field_a_missing_one_and_a_wrong_type_are_named(name: str, tmp_path: Path) -> None:
    document = json.loads((GOLDEN / f"{name}.json").read_text())
    wrong = tmp_path / "wrong.json"
    field = next(key for key in document if key != "format_version")
    for changed, message in (
        ({**document, "surplus": 1}, "surplus"),
        ({key: value for key, value in document.items() if key != field}, field),
        ({**document, field: 3.5}, field),
    ):
        wrong.write_text(json.dumps(changed))
        with pytest.raises(FormatError, match=rf"wrong\.json.*{message}"):
            read_json(wrong, KINDS[name])


@pytest.mark.parametrize("name", ["manifest", "profile"])
def test_another_format_version_is_refused(name: str, tmp_path: Path) -> None:
    document = json.loads((GOLDEN / f"{name}.json").read_text()) | {"format_version": 99}
    (tmp_path / "new.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="format_version 99"):
        read_json(tmp_path / "new.json", KINDS[name])


def _manifest_with(tmp_path: Path, change) -> Path:
    document = json.loads((GOLDEN / "manifest.json").read_text())
    change(document)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    return path


def _frozen(document: dict[str, Any]) -> dict[str, Any]:
    return next(value for p in document["programs"] for value in p["inputs"] if value["role"] == "frozen")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["files"][0].update(path="../outside"), "leaves the bundle"),
        (lambda d: d["programs"][0].update(block=99), "block 99"),
        (lambda d: d["programs"].append(d["programs"][0]), "same name"),
        (lambda d: d["programs"][0].update(block=2), "work is not about block 2"),
        (lambda d: d["programs"][0]["work"].update(kind="distill"), "is no name for its work"),
        (lambda d: d["programs"][0]["work"].update(last_unit=99), "about no block"),
        (lambda d: d["programs"][0]["work"].update(kind="whole"), "Invalid value"),
        (lambda d: d["programs"][0]["memory"].update(arena_bytes=-1), "arena_bytes is negative"),
        (lambda d: d["partition"]["blocks"].pop(), "partition"),
        (lambda d: d["files"].clear(), "missing"),
        (lambda d: _frozen(d).update(read_before=[0]), "belong together"),
        (lambda d: _frozen(d).update(arena_offset=0), "belong together"),
        (lambda d: _frozen(d).update(read_before=[0], arena_offset=-64), "outside of the arena"),
        (lambda d: _frozen(d).update(read_before=[0], arena_offset=1 << 40), "outside of the arena"),
        (lambda d: _frozen(d).update(read_before=[10_000], arena_offset=0), "instructions that are not there"),
        (lambda d: d["programs"][0]["inputs"][0].update(read_before=[0], arena_offset=0), "only frozen tensors"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=message):
        read_json(_manifest_with(tmp_path, change), Manifest)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("arena_bytes", -5, "arena_bytes is negative"),
        ("predicted_peak_bytes", 1, "its parts add up to"),
        ("step_seconds_median", -1.0, "not a duration"),
        ("measured_peak_bytes", None, "measured_peak_bytes is missing"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(field: str, value, message: str, tmp_path: Path) -> None:
    document = json.loads((GOLDEN / "profile.json").read_text())
    document["costs"][0][field] = value
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=message):
        read_json(tmp_path / "p.json", DeviceProfile)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_document_is_one_line_with_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.json") as caught:
        read_json(tmp_path / "x.json", Plan)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"gone\.json"):
        read_json(tmp_path / "gone.json", Plan)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_blocks_with_a_gap_are_refused() -> None:
    partition = Partition(blocks=(Block(index=1, first_unit=0, last_unit=1), Block(index=2, first_unit=3, last_unit=4)))
    with pytest.raises(FormatError, match="block 2 must start at unit 2"):
        partition.check(5)


def test_update_metadata_survives_a_safetensors_header() -> None:
    metadata = UpdateMetadata(
        block=2, program="grow-block2", examples=640, steps=20, base_version="3-ab", loss_first=2.5, loss_last=1.25
    )
    assert UpdateMetadata.from_strings(metadata.to_strings(), "u.safetensors") == metadata
    with pytest.raises(FormatError, match=r"u\.safetensors"):
        UpdateMetadata.from_strings({}, "u.safetensors")
    with pytest.raises(FormatError, match="metadata"):
        UpdateMetadata.from_strings({"profl": '{"block": "two"}'}, "u.safetensors")


def test_a_place_that_takes_no_file_is_refused_by_its_option_and_a_good_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"^--html \S+: is a folder; give the name of a file$"):
        check_output_file(tmp_path, option="--html")
    for below in ("file/page", "file/deep/page"):
        with pytest.raises(UsageError, match=r"^-o \S+page: cannot be written: \S+/file: Not a directory; choose"):
            check_place(tmp_path / below)
    check_output_file(tmp_path / "new" / "folder" / "page")
    check_output_file(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["{}", '{"grow-block1": 5}', "[]", "3"])
def test_another_json_document_is_said_to_be_none_of_the_kind(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    for kind, title in ((DeviceProfile, "device profile"), (Plan, "plan"), (Manifest, "bundle manifest")):
        with pytest.raises(
            FormatError,
            match=rf"other\.json: is not a {title} of this release: "
            r".* (must be an object|is missing|is not known here)",
        ):
            read_json(path, kind)


def test_a_wrong_field_inside_a_document_does_not_make_it_another_one(tmp_path: Path) -> None:
    values = json.loads((GOLDEN / "profile.json").read_text())
    values["device"]["cpu_count"] = "two"
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"profile\.json: device.cpu_count: is a text, must be a whole number"):
        read_json(path, DeviceProfile)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ended = os.fork()
    if ended == 0:
        with atomic_file(tmp_path / "answer.json") as temporary:
            temporary.write_text("half")
            os._exit(0)
    os.waitpid(ended, 0)
    for name in ("answer.json", ".hidden", ".hidden.json", "a.0123abcd", ".notes.0123abcg"):
        (tmp_path / name).write_text("kept")
    (tmp_path / ".folder.0123abcd").mkdir()
    kept = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".answer.json.")}
    assert len(list(tmp_path.iterdir())) == len(kept) + 1
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
