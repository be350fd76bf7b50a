"""`profl-server plan`: what is wrong with its options is said with their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from device_profiles.errors import ProflError
from server.cli import _run, cli

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def _error(*arguments: str) -> str:
    error = CliRunner().invoke(cli, ["plan", *arguments]).exception
    assert isinstance(error, ProflError)
    return str(error)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    folder = tmp_path / "profiles"
    folder.mkdir()
    shutil.copy(GOLDEN / "profile.json", folder)
    return folder


def test_a_bundle_that_is_none_is_named_with_its_option(profiles: Path, tmp_path: Path) -> None:
    assert _error("--bundle", str(tmp_path / "none"), "--profiles", str(profiles)).startswith(f"--bundle: {tmp_path}")


def test_profiles_that_are_not_there_or_no_profiles_are_named_with_the_option(profiles: Path, tmp_path: Path) -> None:
    bundle = ("--bundle", str(_bundle(tmp_path / "bundle", _golden())))
    assert _error(*bundle, "--profiles", str(tmp_path / "none")).startswith(
        f"--profiles: {tmp_path / 'none'}: does not exist"
    )
    (profiles / "other.json").write_text("{}")
    said = _error(*bundle, "--profiles", str(profiles))
    assert said.startswith(f"--profiles: {profiles / 'other.json'}: is not a device profile of this release")


def _golden() -> dict[str, Any]:
    """A manifest, with files of no bytes."""
    document: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text())
    document["files"] = [file | {"size_bytes": 0} for file in document["files"]]
    return document


def _bundle(folder: Path, document: dict[str, Any]) -> Path:
    """A bundle without what is in its files: a plan reads the manifest alone."""
    for file in document["files"]:
        (folder / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / file["path"]).touch()
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def test_runs_of_blocks_need_a_bundle_and_profiles_of_them(profiles: Path, tmp_path: Path) -> None:
    document = _golden()
    bundle = _bundle(tmp_path / "bundle", document)
    options = ("--bundle", str(bundle), "--profiles", str(profiles), "--joint")
    assert _error(*options) == f"--bundle: {bundle}: has no programs for --joint; export it with --joint"
    grown = next(program for program in document["programs"] if program["name"] == "grow-block2")
    run = grown["work"] | {"kind": "joint", "first_unit": 0}
    document["programs"].append(grown | {"name": "joint-blocks1-2", "work": run})
    document["files"].append({"path": "programs/joint-blocks1-2.pte", "size_bytes": 0, "sha256": "0" * 64})
    _bundle(bundle, document)
    assert _error(*options).startswith(
        "--joint: no profile contains runs of blocks; measure them with profl-profile --purpose joint"
    )


def test_a_package_that_a_device_does_without_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy.linalg")

    monkeypatch.setattr(cli, "main", fails)
    assert _run() == 2
    line = "profl-server: error: this needs the package numpy; install profl-edge's extra 'server': pip install "
    assert capsys.readouterr().err.startswith(line)
