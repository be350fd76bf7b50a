"""Programs from strangers: whatever is wrong with one is a line when it is loaded, and never reaches a kernel."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("executorch", reason="programs are changed through its schema")

from edge_runtime.device import _native, _operators  # noqa: E402
from tests.support.hostile_programs import HOSTILE, changed  # noqa: E402


@pytest.fixture(scope="module")
def program(cnn_bundle: Path) -> bytes:
    """The training step of the first block, whose convolutions are trained."""
    return (cnn_bundle / "programs" / "grow-block1.pte").read_bytes()


def _refusal(program: bytes, folder: Path) -> str:
    path = folder / "hostile.pte"
    path.write_bytes(program)
    with pytest.raises(_native.ProgramError) as raised:
        _native.Program(str(path), 1)
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


def test_a_program_that_is_written_again_unchanged_still_loads(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "same.pte"
    path.write_bytes(changed(program, lambda plan: None))
    assert _native.Program(str(path), 1).instruction_count == _instructions(program, tmp_path)


def _instructions(program: bytes, folder: Path) -> int:
    (folder / "own.pte").write_bytes(program)
    return int(_native.Program(str(folder / "own.pte"), 1).instruction_count)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_exporter_writes_is_refused_in_a_line(what: str, program: bytes, tmp_path: Path) -> None:
    change, message = HOSTILE[what]
    text = _refusal(changed(program, change), tmp_path)
    assert re.search(message, text), text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_ends_early_is_refused(share: float, program: bytes, tmp_path: Path) -> None:
    _refusal(program[: int(len(program) * share)] or b"\0", tmp_path)


def test_a_header_that_promises_segments_is_refused(program: bytes, tmp_path: Path) -> None:
    header = b"eh00" + struct.pack("<IQQ", 32, len(program), len(program)) + bytes(8)
    assert "segments" in _refusal(program[:8] + header + program[8 + len(header) :], tmp_path)


def test_labels_that_the_gradient_overwrites_are_no_places_to_read_from() -> None:
    memory = np.zeros(64, np.float32)
    logits = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    labels, gradient = memory[8:16].view(np.int64), memory[:32].reshape(4, 8)
    loss = np.zeros(1, np.float32)
    assert _operators.call("profl::cross_entropy.out", [logits, labels, 4, 0.0, loss, gradient]) != 0


def test_tokens_that_the_rows_overwrite_are_no_places_to_read_from() -> None:
    memory = np.zeros(64, np.float32)
    table = np.full((3, 8), 1e30, np.float32)
    tokens, rows = memory[8:16].view(np.int64), memory[:32].reshape(4, 8)
    assert _operators.call("profl::embedding.out", [tokens, table, rows]) == 0
