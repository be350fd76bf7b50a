"""`profl-server profiles`, and a plan from what it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from device_profiles.contract import Runtime
from device_profiles.errors import FormatError, UsageError
from device_profiles.files import read_json, write_json
from device_profiles.profile import DeviceProfile
from edge_runtime.device.prepare.bundle import open_bundle
from server.cli import cli
from server.registry.transfer import by_device
from tests.support.profiles import profile_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["profiles", *map(str, arguments)])


def _ok(*arguments: object) -> str:
    result = _run(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "measured"
    for name in ("phone", "board"):
        write_json(folder / f"{name}.json", profile_of(name, limit_bytes=40 << 20))
    return folder


@pytest.fixture
def registry(files: Path, tmp_path: Path) -> Path:
    path = tmp_path / "profiles.db"
    assert _ok("import", files, "--registry", path) == f"imported 2 profiles into {path}\n"
    return path


def test_the_registry_is_the_one_that_the_environment_names(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _ok("import", files / "phone.json")
    assert (tmp_path / "profiles.db").exists()
    monkeypatch.setenv("PROFL_REGISTRY", "other")
    _ok("import", files / "phone.json")
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_devices_are_listed_with_what_they_may_use(registry: Path) -> None:
    head, first, second = _ok("list", "--registry", registry).splitlines()
    assert head.split() == ["device", "model", "runtime", "MB", "bundle"]
    golden = read_json(GOLDEN / "profile.json", DeviceProfile)
    assert first.split() == ["board", golden.model, "native", "40.0", golden.bundle_sha256[:12]]
    assert second.startswith("phone ")
    listed = json.loads(_ok("list", "--registry", registry, "--json"))
    assert [p["device"] for p in listed["profiles"]] == ["board", "phone"] and listed["damaged"] == []


def test_a_device_is_shown_with_its_programs(registry: Path) -> None:
    text = _ok("show", "phone", "--registry", registry)
    golden = read_json(GOLDEN / "profile.json", DeviceProfile)
    assert [line.split()[0] for line in text.splitlines()[3:]] == [cost.program for cost in golden.costs]
    shown = json.loads(_ok("show", "phone", "--registry", registry, "--json"))
    assert shown["profiles"][0]["device"]["name"] == "phone"
    assert isinstance(_run("show", "nobody", "--registry", registry).exception, UsageError)


def test_profiles_go_into_a_folder_and_into_another_registry(registry: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    _ok("export", "-o", tmp_path / "folder", "--registry", registry)
    _ok("export", "-o", copy, "--registry", tmp_path / "folder")
    assert _ok("list", "--registry", copy) == _ok("list", "--registry", registry)
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    error = _run("export", "-o", mine, "--registry", registry).exception
    assert isinstance(error, UsageError) and str(error).startswith(f"-o {mine}: is neither")


def test_a_device_is_removed(registry: Path) -> None:
    assert _ok("remove", "phone", "--registry", registry) == "removed 1 profile of phone\n"
    assert "phone" not in _ok("list", "--registry", registry)
    assert isinstance(_run("remove", "phone", "--registry", registry).exception, UsageError)


def test_damaged_files_are_named_and_the_others_imported(files: Path, tmp_path: Path) -> None:
    (files / "torn.json").write_text("{")
    (files / "other.json").write_text("{}")
    registry = tmp_path / "profiles.db"
    result = _run("import", files, "--registry", registry)
    assert str(result.exception) == "2 of 4 files were not imported" and isinstance(result.exception, FormatError)
    assert len(result.stderr.splitlines()) == 2 and f"{files / 'torn.json'}: " in result.stderr
    assert len(json.loads(_ok("list", "--registry", registry, "--json"))["profiles"]) == 2
    (files / "other.json").unlink()
    assert str(_run("import", files, "--registry", registry).exception).startswith(f"{files / 'torn.json'}: ")


def test_nothing_is_created_for_what_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("{")
    _run("import", tmp_path / "torn.json", "--registry", tmp_path / "profiles.db")
    _run("import", tmp_path / "absent.json", "--registry", tmp_path / "profiles.db")
    _run("list", "--registry", tmp_path / "profiles.db")
    assert [path.name for path in tmp_path.iterdir()] == ["torn.json"]


def test_a_device_is_planned_for_by_its_profile_of_the_bundle_else_by_its_latest() -> None:
    def measured(profile: DeviceProfile, date: str, runtime: Runtime = "native") -> DeviceProfile:
        measurement = msgspec.structs.replace(profile.measurement, measured_at=date)
        return msgspec.structs.replace(profile, measurement=measurement, runtime=runtime)

    bundles = ["a" * 64, "b" * 64, "c" * 64]
    own, late, early = (profile_of("phone", bundle_sha256=bundle) for bundle in bundles)
    own, late, early = (
        measured(own, "2025-01-01"),
        measured(late, "2026-03-01T00:00:00Z"),
        measured(early, "2026-02-01"),
    )
    other = measured(profile_of("phone", bundle_sha256="d" * 64), "2026-09-01", "torch")
    assert dict(by_device([late, own, early, other], "a" * 64, "here")) == {"phone": own}
    assert dict(by_device([early, late, own, other], "e" * 64, "here")) == {"phone": late}
    with pytest.raises(UsageError, match="here: has a second profile of phone; rename it with profl-profile --name"):
        dict(by_device([own, own], "a" * 64, "here"))
    with pytest.raises(UsageError, match="here: holds no profile of the light runtime"):
        dict(by_device([other], "a" * 64, "here"))


def test_a_plan_from_a_registry_is_that_from_the_files(files: Path, registry: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    document = json.loads((GOLDEN / "manifest.json").read_text())
    for file in document["files"]:
        file["size_bytes"] = 0
        (bundle / file["path"]).parent.mkdir(exist_ok=True)
        (bundle / file["path"]).touch()
    (bundle / "manifest.json").write_text(json.dumps(document))

    def planned(where: Path) -> Result:
        return CliRunner().invoke(cli, ["plan", "--bundle", str(bundle), "--profiles", str(where), "--json"])

    digest = open_bundle(bundle).digest
    for name in ("phone", "board"):
        write_json(files / f"{name}.json", profile_of(name, limit_bytes=40 << 20, bundle_sha256=digest))
    _ok("import", files, "--registry", registry)
    from_files, from_registry = planned(files), planned(registry)
    assert from_files.exit_code == 0, from_files.exception
    assert from_registry.stdout == from_files.stdout
    assert json.loads(from_registry.stdout)["clients"][0]["client"] == "board"
    (files / "torn.json").write_text("{")
    assert str(planned(files).exception).startswith(f"--profiles: {files / 'torn.json'}: ")
