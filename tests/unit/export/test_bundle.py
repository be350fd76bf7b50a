"""Bundles: whole or not at all, true to their manifest."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")


from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.files import read_json, sha256_of  # noqa: E402
from device_profiles.manifest import Manifest  # noqa: E402
from edge_runtime.device.cli import main as profl_edge  # noqa: E402
from edge_runtime.export.targets.native import export_bundle  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundle") / "cnn"
    export_bundle("cnn", output, batch=4, width=4)
    return output


def test_every_file_has_the_digest_the_manifest_states(folder: Path) -> None:
    manifest = read_json(folder / "manifest.json", Manifest)
    assert {f.path for f in manifest.files} == {
        p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.name != "manifest.json"
    }
    assert all(sha256_of(folder / f.path) == f.sha256 for f in manifest.files)


def test_the_parts_of_the_peak_add_up(folder: Path) -> None:
    for program in read_json(folder / "manifest.json", Manifest).programs:
        memory = program.memory
        parts = (
            memory.parameters_bytes
            + memory.gradients_bytes
            + memory.optimizer_state_bytes
            + memory.activations_bytes
            + memory.temporaries_bytes
        )
        assert parts == memory.live_bytes <= memory.arena_bytes <= 1.05 * memory.live_bytes


def test_programs_carry_no_weights(folder: Path) -> None:
    assert all(path.stat().st_size < 64_000 for path in (folder / "programs").iterdir())


def test_the_same_seed_gives_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    export_bundle("cnn", tmp_path / "again", batch=4, width=4)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("most_bytes", "file"),
    [(2_000, "programs/grow-block1.pte"), (30_000, "weights/initial.safetensors")],
)
def test_a_disk_that_takes_no_more_is_named_with_the_file(
    most_bytes: int, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands in for a full disk: the same error of the same call."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        status = profl_edge(["export", "--model", "cnn", "--width", "16", "-o", str(tmp_path / "bundle")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path}/bundle/{file}" in last and "File too large" in last
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"contains no manifest\.json"):
        export_bundle("cnn", tmp_path, batch=4, width=4)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "alexnet"}, "alexnet"),
        ({"model": "cnn", "batch": 0}, "--batch"),
        ({"model": "cnn", "blocks": 9}, "--blocks"),
        ({"model": "cnn", "block": 4}, "--block"),
        ({"model": "cnn", "blocks": 2, "partition": "0-2"}, "--partition"),
        ({"model": "nowhere:factory"}, "nowhere"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    arguments: dict[str, object], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=named):
        export_bundle(output=tmp_path / "bundle", **arguments)  # type: ignore[arg-type]  # parametrised
    assert list(tmp_path.iterdir()) == []
