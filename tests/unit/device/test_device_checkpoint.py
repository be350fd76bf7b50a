"""A checkpoint goes on with the run that it belongs to, and with no other."""

from __future__ import annotations

import mmap
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from device_profiles.errors import DigestError, FormatError, UsageError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest, Program
from device_profiles.seal import SEAL_KEY, UNSEALED, seal
from edge_runtime.device.prepare.checkpoint import Progress, Settings, checkpoint_path, load_checkpoint
from edge_runtime.device.prepare.tensors import TensorFile

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SETTINGS = Settings(
    bundle="b",
    program="grow-block1",
    data="digits",
    examples=10,
    labels_crc32=1,
    learning_rate=0.1,
    seed=0,
    weights=None,
    base_version="v",
    threads=2,
)
PROGRESS = Progress(steps=7, loss_first=2.0, loss_last=1.0)
OTHER = {int: 99, float: 0.75, str: "other"}


@pytest.fixture
def program() -> Program:
    """Its first tensor is a sum of gradients, which is zero between steps and in no checkpoint."""
    golden = read_json(GOLDEN / "manifest.json", Manifest).programs[0]
    first = msgspec.structs.replace(golden.tensors[0], name="sum", role="gradient_sum")
    return msgspec.structs.replace(golden, tensors=(first, *golden.tensors))


def _tensors(program: Program) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0)
    return {t.name: drawn.random(t.shape).astype(t.dtype) for t in program.tensors if t.role != "gradient_sum"}


def _write(path: Path, tensors: dict[str, np.ndarray], metadata: str | None = None) -> Path:
    told = msgspec.json.encode({"settings": SETTINGS, "progress": PROGRESS}).decode() if metadata is None else metadata
    save_file(tensors, path, metadata={SEAL_KEY: UNSEALED, "profl_checkpoint": told})
    seal(str(path))
    return path


def test_progress_and_the_place_of_every_buffer_are_given_back(program: Program, tmp_path: Path) -> None:
    tensors = _tensors(program)
    path = _write(tmp_path / "c", tensors)
    progress, places = load_checkpoint(path, program, SETTINGS)
    assert progress == PROGRESS and set(places) == set(tensors)
    content = path.read_bytes()
    for name, (file, offset, size) in places.items():
        assert file == str(path) and content[offset : offset + size] == tensors[name].tobytes()


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_another_run_is_refused_by_the_first_setting_that_differs(field: str, program: Program, tmp_path: Path) -> None:
    path = _write(tmp_path / "c", _tensors(program))
    before = getattr(SETTINGS, field)
    now = {"cache_prefix": "float16", "augment": "crop-flip", "proximal_mu": 0.5}.get(field, OTHER.get(type(before), 3))
    with pytest.raises(UsageError, match=rf"^{path}: belongs to a run with {field} {before}, this one has {now}; "):
        load_checkpoint(path, program, msgspec.structs.replace(SETTINGS, **{field: now}))


def test_damaged_bytes_are_no_checkpoint(program: Program, tmp_path: Path) -> None:
    path = _write(tmp_path / "c", _tensors(program))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        content[-1] ^= 1
    with pytest.raises(DigestError, match=r"omit --resume to start again"):
        load_checkpoint(path, program, SETTINGS)


def test_a_file_without_a_digest_is_no_checkpoint(program: Program, tmp_path: Path) -> None:
    told = msgspec.json.encode({"settings": SETTINGS, "progress": PROGRESS}).decode()
    save_file(_tensors(program), tmp_path / "c", metadata={"profl_checkpoint": told})
    with pytest.raises(DigestError):
        load_checkpoint(tmp_path / "c", program, SETTINGS)


def test_a_file_that_is_not_there_is_named(program: Program, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"^{tmp_path / 'c'}: No such file"):
        load_checkpoint(tmp_path / "c", program, SETTINGS)


@pytest.mark.parametrize("metadata", ["", "{}", '{"settings":{},"progress":{}}', "nonsense"])
def test_weights_that_tell_no_settings_are_no_checkpoint(metadata: str, program: Program, tmp_path: Path) -> None:
    path = _write(tmp_path / "c", _tensors(program), metadata)
    with pytest.raises(FormatError, match=rf"^{path}: not a checkpoint: "):
        load_checkpoint(path, program, SETTINGS)


def test_numbers_as_text_are_no_checkpoint(program: Program, tmp_path: Path) -> None:
    told = msgspec.json.encode({"settings": SETTINGS, "progress": PROGRESS}).decode()
    path = _write(tmp_path / "c", _tensors(program), told.replace('"steps":7', '"steps":"7"'))
    with pytest.raises(FormatError, match="not a checkpoint"):
        load_checkpoint(path, program, SETTINGS)


def test_a_buffer_that_is_missing_or_of_another_shape_is_named(program: Program, tmp_path: Path) -> None:
    tensors = _tensors(program)
    last = program.tensors[-1].name
    missing = _write(tmp_path / "m", {name: value for name, value in tensors.items() if name != last})
    with pytest.raises(FormatError, match=f"tensor '{last}' is missing"):
        load_checkpoint(missing, program, SETTINGS)
    longer = _write(tmp_path / "l", {**tensors, last: np.zeros((99,), np.float32)})
    with pytest.raises(FormatError, match=rf"tensor '{last}' is float32 \[99\]"):
        load_checkpoint(longer, program, SETTINGS)


def test_the_file_is_closed_again(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, closed, close = _write(tmp_path / "c", _tensors(program)), [], TensorFile.close

    def noted(self: TensorFile) -> None:
        closed.append(self.path)
        close(self)

    monkeypatch.setattr(TensorFile, "close", noted)
    load_checkpoint(path, program, SETTINGS)
    assert closed == [path]


def test_the_checkpoint_of_a_link_lies_beside_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far" / "update")
    assert checkpoint_path(tmp_path / "near") == tmp_path / "far" / "update.checkpoint"
    assert checkpoint_path(tmp_path / "own") == tmp_path / "own.checkpoint"


def test_what_a_file_does_not_tell_was_not_asked_for(program: Program, tmp_path: Path) -> None:
    told = msgspec.to_builtins({"settings": SETTINGS, "progress": PROGRESS})
    later = ("proximal_mu", "cache_prefix", "augment", "augment_seed", "augment_epoch", "cached_augmentations")
    for name in later:
        del told["settings"][name]
    path = _write(tmp_path / "c", _tensors(program), msgspec.json.encode(told).decode())
    asked = msgspec.structs.replace(SETTINGS, proximal_mu=0.0, **dict.fromkeys(later[1:]))
    assert load_checkpoint(path, program, asked)[0] == PROGRESS
