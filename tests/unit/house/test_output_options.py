"""Outputs on the command lines: a place that will not take them is refused before the work, by its option."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from device_profiles.errors import UsageError
from edge_runtime.device.cli import main as profl_edge
from profiler.cli import main as profl_profile
from server.cli import cli as server
from server.fleet.reading import read_fleet
from server.running.progress import TerminalProgress
from server.running.run_fleet import run_fleet

DEMO = Path(__file__).resolve().parents[3] / "examples" / "fleets" / "demo.toml"


def test_training_into_a_folder_is_refused_before_the_bundle_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for purpose in ("grow", "distill"):
        arguments = ["train", "absent", "--block", "2", "--data", "digits", "--purpose", purpose]
        assert profl_edge([*arguments, "-o", str(tmp_path)]) == 2
        errors = capsys.readouterr().err
        assert errors == f"profl-edge: error: -o {tmp_path}: is a folder; give the name of a file\n"


@pytest.mark.parametrize("arguments", [("run", "absent", "-o"), ("run", "absent", "--html"), ("show", "a", "--html")])
def test_a_profile_or_page_that_is_a_folder_is_refused_before_anything_is_measured(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profl_profile([*arguments, str(tmp_path)]) == 2
    assert f"{arguments[-1]} {tmp_path}: is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--bundle", "absent", "--profiles", "absent", "-o"),
        ("split", "--fleet", "absent", "-o"),
        ("report", "absent", "--html"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_servers_files_are_no_folders(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^{arguments[-1]} .*: is a folder"):
        CliRunner().invoke(server, [*arguments, str(tmp_path)], catch_exceptions=False)


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "file"
    output.write_text("mine")
    progress = TerminalProgress()
    with pytest.raises(UsageError, match=r"-o \S+: is a file; give the folder of the run"):
        run_fleet(read_fleet(DEMO), output, resume=False, observer=progress, note=progress.note)


@pytest.mark.parametrize("target", ["native", "onnx", "executorch"])
def test_an_export_below_a_file_is_refused_before_the_model_is_made(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("torch", "executorch"):
        pytest.importorskip(package, reason="the exporter needs it")
    (tmp_path / "file").write_text("mine")
    output = tmp_path / "file" / "out"
    arguments = ["export", "--model", "absent:model", "--target", target, "-o", str(output)]
    assert profl_edge(arguments) == 2
    assert f"-o {output}: cannot be written: {tmp_path}/file: Not a directory" in capsys.readouterr().err
