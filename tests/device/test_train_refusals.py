"""What `profl-edge train` refuses: one line, the right status, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edge_runtime.device.data.npz_writing import write_npz
from tests.support.device_commands import profl_edge


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where nothing may appear."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "update.safetensors"


def _refused(bundle: Path, output: Path, *arguments: object, status: int = 2, block: int = 1) -> str:
    line = profl_edge("train", bundle, "--block", block, "-o", output, "--json", *arguments).refusal(status)
    assert list(output.parent.iterdir()) == []
    return line


@pytest.fixture
def copy(cnn_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to damage."""
    return Path(shutil.copytree(cnn_bundle, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["programs/grow-block1.pte", "weights/initial.safetensors"])
def test_a_changed_byte_is_found(copy: Path, output: Path, name: str) -> None:
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    line = _refused(copy, output, "--data", "digits")
    assert name in line
    assert "SHA-256" in line


@pytest.mark.parametrize("name", ["programs/grow-block2.pte", "weights/initial.safetensors"])
def test_a_shorter_file_is_found_even_where_it_is_not_used(copy: Path, output: Path, name: str) -> None:
    raw = (copy / name).read_bytes()
    (copy / name).write_bytes(raw[:-1])
    line = _refused(copy, output, "--data", "digits")
    assert name in line
    assert f"{len(raw) - 1} bytes, the manifest states {len(raw)}" in line


def test_an_absent_file_is_found(copy: Path, output: Path) -> None:
    (copy / "programs" / "eval-block3.pte").unlink()
    assert "eval-block3.pte: No such file" in _refused(copy, output, "--data", "digits")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"format_version": 2', b'"format_version": 99', "format_version 99"),
        (b'"model": {', b'"modle": {', "modle"),
        (b"{", b"[", "manifest.json"),
    ],
)
def test_a_manifest_of_another_form_is_refused(copy: Path, output: Path, old: bytes, new: bytes, message: str) -> None:
    manifest = copy / "manifest.json"
    raw = manifest.read_bytes()
    assert old in raw
    manifest.write_bytes(raw.replace(old, new, 1))
    line = _refused(copy, output, "--data", "digits")
    assert "manifest.json" in line
    assert message in line


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, output: Path) -> None:
    assert "not a bundle folder" in _refused(tmp_path / "absent", output, "--data", "digits")
    assert "manifest.json" in _refused(tmp_path, output, "--data", "digits")


def test_a_block_that_is_not_there_is_refused_with_those_that_are(cnn_bundle: Path, output: Path) -> None:
    assert "one of: 1, 2, 3" in _refused(cnn_bundle, output, "--data", "digits", block=4)


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_out_of_range_is_refused_before_training(
    cnn_bundle: Path, tmp_path: Path, output: Path, label: int
) -> None:
    labels = np.arange(20) % 10
    labels[17] = label
    path = tmp_path / "part.npz"
    write_npz(path, np.zeros((20, 28, 28), np.uint8), labels)
    line = _refused(cnn_bundle, output, "--data", f"npz:{path}")
    assert f"part.npz: labels: label {label} (example 17) is outside 0..9" in line


def test_images_larger_than_the_input_are_refused(cnn_bundle: Path, tmp_path: Path, output: Path) -> None:
    write_npz(tmp_path / "large.npz", np.zeros((20, 40, 40), np.uint8), np.zeros(20, np.int64))
    line = _refused(cnn_bundle, output, "--data", f"npz:{tmp_path / 'large.npz'}")
    assert "images are 1x40x40, the model takes 3x32x32" in line


def test_less_data_than_a_batch_is_refused(cnn_bundle: Path, tmp_path: Path, output: Path) -> None:
    write_npz(tmp_path / "few.npz", np.zeros((7, 28, 28), np.uint8), np.zeros(7, np.int64))
    assert "7 examples do not fill one batch of 8" in _refused(
        cnn_bundle, output, "--data", f"npz:{tmp_path / 'few.npz'}"
    )


def test_an_unreadable_data_file_is_refused(cnn_bundle: Path, tmp_path: Path, output: Path) -> None:
    assert "absent.npz" in _refused(cnn_bundle, output, "--data", f"npz:{tmp_path / 'absent.npz'}")
    (tmp_path / "noise.npz").write_bytes(b"noise" * 100)
    assert "noise.npz" in _refused(cnn_bundle, output, "--data", f"npz:{tmp_path / 'noise.npz'}")
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz" in _refused(cnn_bundle, output, "--data", f"npz:{tmp_path / 'folder.npz'}")


def test_weights_that_do_not_fit_are_refused(cnn_bundle: Path, tmp_path: Path, output: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"fc.weight": np.zeros((10, 3), np.float32)}, path)
    line = _refused(cnn_bundle, output, "--data", "digits", "--weights", path, block=3)
    assert "weights.safetensors: tensor 'fc.weight' is float32 [10, 3], expected" in line
    path.write_bytes(b"")
    assert "weights.safetensors" in _refused(cnn_bundle, output, "--data", "digits", "--weights", path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "3", "--epochs", "1"), "--steps cannot be combined with --epochs"),
        (("--steps", "0"), "--steps"),
        (("--threads", "0"), "--threads"),
        (("--memory-limit", "much"), "write it as 128MB"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    cnn_bundle: Path, output: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in _refused(cnn_bundle, output, "--data", "digits", *options)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(cnn_bundle: Path, output: Path) -> None:
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--lr", "1e30", "--checkpoint-every", 1]
    line = profl_edge(*arguments, "-o", output, "--json").refusal(3)
    assert "step 2" in line or "step 3" in line
    assert "the last checkpoint is kept" in line
    assert [path.name for path in output.parent.iterdir()] == ["update.safetensors.checkpoint"]


def test_an_output_that_cannot_be_written_is_refused(cnn_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--steps", 1]
    assert "cannot be written" in profl_edge(*arguments, "-o", tmp_path / "file" / "update").refusal(2)


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        (
            2,
            ("--first-block", "2"),
            "--first-block 2: must lie before --block 2; give an earlier block, or leave it out",
        ),
        (9, ("--first-block", "2"), "no 'grow' program for block 9; give --block one of: 1, 2, 3"),
        (3, ("--first-block", "2"), "for blocks 2 to 3 together; export the bundle with --joint"),
        (
            3,
            ("--first-block", "2", "--purpose", "distill"),
            "--first-block cannot be combined with --purpose distill: one",
        ),
        (3, ("--first-block", "2", "--cache-prefix"), "--first-block cannot be combined with --cache-prefix: several"),
    ],
)
def test_runs_of_blocks_that_cannot_be_trained_are_refused(
    cnn_bundle: Path, output: Path, block: int, options: tuple[str, ...], message: str
) -> None:
    assert message in _refused(cnn_bundle, output, "--data", "digits", *options, block=block)
