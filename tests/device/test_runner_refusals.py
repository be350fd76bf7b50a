"""What `profl-train` refuses, each in one line that names the option or the file."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")

from tests.support.runner import built_runner, run, write_idx

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def runner() -> Path:
    return built_runner()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"idx:{write_idx(tmp_path_factory.mktemp('data') / 'idx')}"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "nothing says what to train with; give the folder of a bundle"),
        (("absent",), "--data is missing; give idx:DIR"),
        (("absent", "--data", "idx:d"), "absent: not a bundle folder"),
        (("absent", "--block", 1, "--data", "idx:d"), "absent: not a bundle folder"),
        (("absent", "--blok", 1), "--blok: is not an option; profl-train --help lists all"),
        (("absent", "--block"), "--block: a value is missing behind it"),
        (("absent", "--block", "1x"), "--block 1x: is not a whole number"),
        (("absent", "--block=0"), "--block 0: give 1 or more"),
        (("absent", "--threads", 1000), "--threads 1000: give 1 or more, at most 256"),
        (("absent", "--lr", "nan"), "--lr nan: give a number from 0"),
        (("absent", "--epochs", "0"), "--epochs 0: give a number above 0"),
        (("absent", "--memory-limit", "128"), "--memory-limit 128: is not a size above zero with a unit"),
        (("absent", "--purpose", "grown"), "--purpose grown: give one of: grow, distill"),
        (("one", "two"), "two: one bundle is enough"),
    ],
)
def test_the_command_line(runner: Path, arguments: tuple[object, ...], line: str) -> None:
    assert run(runner, *arguments).refusal().startswith(line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "nothing says what to train; give --block or --work"),
        (("--block", 9), "no 'grow' program for block 9; give --block one of: 1, 2, 3"),
        (("--work", "joint-units0-1"), "has no such program; it has grow-units0-0"),
        (("--block", 3, "--first-block", 3), "--first-block 3: must lie before --block"),
        (
            ("--block", 2, "--first-block", 1),
            "has no program for blocks 1 to 2 together; export the bundle with --joint",
        ),
        (("--block", 1, "--purpose", "distill"), "nothing stands in for it; give --block 2"),
        (("--block", 1, "--data", "digits"), "--data digits: is none that profl-train reads"),
        (("--block", 1, "--data", "idx:absent"), "absent: no such folder"),
        (("--block", 1, "--weights", "absent"), "absent: No such file or directory"),
        (("--block", 1, "--proximal-mu", 1), "has no proximal term; export the bundle with --proximal"),
        (("--block", 1, "-o", "."), "-o .: is not a regular file"),
        (("--block", 1, "-o", "absent/u"), "-o absent/u: its folder cannot be written"),
        (("--block", 1, "--resume"), "--resume requires -o"),
    ],
)
def test_what_the_bundle_does_not_have(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, arguments: tuple[object, ...], line: str
) -> None:
    given = arguments if "--data" in arguments else (*arguments, "--data", data)
    assert line in run(runner, cnn_bundle, *given, cwd=tmp_path).refusal()
    assert not list(tmp_path.iterdir())


def _change(bundle: Path, change: Any) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _grow1(manifest: Any) -> Any:
    return next(program for program in manifest["programs"] if program["name"] == "grow-block1")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m: m.update(format_version=1), "format_version 1 is not known here (this release reads 2)"),
        (lambda m: m.update(more=1), "manifest.json: field 'more' is not known to this release"),
        (lambda m: _grow1(m).update(instructions=1 << 40), "grow-block1: instructions is no count"),
        (lambda m: _grow1(m).update(instructions=_grow1(m)["instructions"] + 1), "instructions, the manifest states"),
        (lambda m: _grow1(m)["memory"].update(arena_bytes=64), "its arena has"),
        (lambda m: _grow1(m)["memory"].update(staging_bytes=0), "staging_bytes are not what the program's inputs take"),
        (lambda m: _grow1(m)["memory"].update(arena_bytes=-1), "arena_bytes is no size"),
        (lambda m: _grow1(m)["tensors"].pop(), "its buffers and the manifest's tensors differ"),
        (lambda m: _grow1(m)["tensors"][0].update(shape=[1]), "is not what the manifest lists"),
        (lambda m: _grow1(m)["inputs"].pop(), "staging_bytes are not what the program's inputs take"),
        (lambda m: _grow1(m)["optimizer"].update(name="adam"), "its optimizer is not known to this release"),
        (lambda m: m["files"].append({"path": "../x", "size_bytes": 1, "sha256": "0" * 64}), "leaves the bundle"),
        (lambda m: m["files"][0].update(size_bytes=1), "bytes, the manifest states 1"),
    ],
)
def test_a_manifest_that_is_not_one(
    runner: Path, cnn_bundle: Path, data: str, tmp_path: Path, change: Any, line: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(cnn_bundle, bundle)
    _change(bundle, change)
    assert line in run(runner, bundle, "--block", 1, "--data", data).refusal()


def test_bytes_that_are_not_the_bundles(runner: Path, cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    for name in ("programs/grow-block1.pte", "weights/initial.safetensors", "manifest.json"):
        bundle = tmp_path / name.replace("/", "-")
        shutil.copytree(cnn_bundle, bundle)
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (bundle / name).write_bytes(content)
        assert name.rpartition("/")[2] in run(runner, bundle, "--block", 1, "--data", data).refusal()
    # A stranger who makes the digests match is met by the checks of the program itself.
    bundle = tmp_path / "programs-grow-block1.pte"
    digest = hashlib.sha256((bundle / "programs/grow-block1.pte").read_bytes()).hexdigest()

    def match(manifest: Any) -> None:
        entry = next(file for file in manifest["files"] if file["path"] == "programs/grow-block1.pte")
        entry["sha256"] = digest

    _change(bundle, match)
    ran = run(runner, bundle, "--block", 1, "--data", data)
    assert ran.status in (0, 1, 2) and len(ran.errors.splitlines()) == (ran.status != 0)


def test_weights_of_a_part_and_of_another_model(runner: Path, cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    assert run(runner, cnn_bundle, "--block", 1, "--data", data, "--steps", 1, "-o", first).status == 0
    ran = run(runner, cnn_bundle, "--block", 3, "--data", data, "--weights", first)
    assert "grow-block3 reads block 2, and no file holds it; give the updates of earlier steps" in ran.refusal()
    assert run(runner, cnn_bundle, "--block", 2, "--data", data, "--steps", 1, "--weights", first).status == 0
    damaged = bytearray(first.read_bytes())
    damaged[-1] ^= 1
    first.write_bytes(damaged)
    ran = run(runner, cnn_bundle, "--block", 2, "--data", data, "--weights", first)
    assert "is damaged: its SHA-256 is not the one it was written with" in ran.refusal()


def test_data_that_do_not_fit(runner: Path, cnn_bundle: Path, tmp_path: Path) -> None:
    images = np.zeros((16, 8, 8), np.uint8)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (np.savez, {"images": images, "labels": np.full(16, 10)}, "label 10 (example 0) is outside 0..9"),
        (np.savez, {"images": images, "labels": np.zeros(15, int)}, "15 labels for 16 examples"),
        (np.savez, {"images": images}, "array 'labels' is missing"),
        (np.savez, {"images": images[:4], "labels": np.zeros(4, int)}, "4 examples do not fill one batch of 8"),
        (np.savez, {"images": np.zeros((8, 64, 64), np.uint8), "labels": np.zeros(8, int)}, "images are 1x64x64"),
        (np.savez, {"inputs": np.zeros((8, 5), np.float32), "labels": np.zeros(8, int)}, "the model takes float32"),
        (np.savez_compressed, {"images": images, "labels": np.zeros(16, int)}, "is compressed"),
    ]
    for number, (save, arrays, line) in enumerate(cases):
        path = tmp_path / f"{number}.npz"
        save(path, **arrays)
        assert line in run(runner, cnn_bundle, "--block", 1, "--data", f"npz:{path}").refusal()
    packed = write_idx(tmp_path / "idx")
    (packed / "train-images-idx3-ubyte").rename(packed / "train-images-idx3-ubyte.gz")
    assert "gunzip" in run(runner, cnn_bundle, "--block", 1, "--data", f"idx:{packed}").refusal()


def test_a_checkpoint_of_another_run(runner: Path, cnn_bundle: Path, data: str, tmp_path: Path) -> None:
    output = tmp_path / "update.safetensors"
    arguments = [cnn_bundle, "--block", 1, "--data", data, "-o", output, "--resume"]
    (tmp_path / "update.safetensors.checkpoint").write_bytes(b"\0" * 100)
    assert "update.safetensors.checkpoint: not a safetensors file" in run(runner, *arguments).refusal()
    shutil.copy(cnn_bundle / "weights" / "initial.safetensors", tmp_path / "update.safetensors.checkpoint")
    assert "has no digest" in run(runner, *arguments).refusal()
