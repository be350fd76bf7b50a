"""The native module refuses wrong use with an exception: it neither crashes nor computes with the wrong memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from edge_runtime.device import _native


@pytest.fixture
def program(cnn_bundle: Path) -> _native.Program:
    return _native.Program(str(cnn_bundle / "programs" / "grow-block1.pte"), 1)


@pytest.fixture
def shapes(cnn_bundle: Path) -> list[tuple[int, ...]]:
    manifest = read_json(cnn_bundle / "manifest.json", Manifest)
    program = manifest.program("grow-block1")
    return [tuple(value.shape) for value in program.inputs if value.role != "data"]


def test_a_step_whose_inputs_were_not_set_is_an_error(program: _native.Program) -> None:
    with pytest.raises(RuntimeError, match="input 0 was not set"):
        program.execute()


def test_an_input_of_another_shape_type_or_order_is_refused(
    program: _native.Program, shapes: list[tuple[int, ...]]
) -> None:
    labels = shapes[0]
    for wrong in (
        np.zeros((labels[0] + 1,), np.int64),
        np.zeros((*labels, 1), np.int64),
        np.zeros(labels, np.float64),
        np.zeros((2 * labels[0],), np.int64)[::2],
    ):
        with pytest.raises(ValueError, match="input 0 takes a contiguous int64 array of shape"):
            program.set_input(0, wrong)
    with pytest.raises(IndexError):
        program.set_input(program.input_count, np.zeros((), np.float32))


def test_an_input_is_placed_inside_of_the_arena_or_refused(program: _native.Program, tmp_path: Path) -> None:
    program.place_input(1, 0)
    bytes_of_input = 4 * 2
    for offset in (program.arena_bytes - bytes_of_input + 1, program.arena_bytes, 1 << 62):
        with pytest.raises(ValueError, match="input 1 is placed outside of the arena"):
            program.place_input(1, offset)
    with pytest.raises(IndexError):
        program.place_input(program.input_count, 0)
    with pytest.raises(IndexError, match="not placed in the arena"):
        program.read_before(0, [0], 0, 0)


def test_a_file_that_ends_before_a_frozen_tensor_does_is_named(cnn_bundle: Path, tmp_path: Path) -> None:
    described = read_json(cnn_bundle / "manifest.json", Manifest).program("grow-block2")
    path = cnn_bundle / "programs" / "grow-block2.pte"
    program = _native.Program(str(path), 1, described.prefix_instructions)
    values = [value for value in described.inputs if value.role != "data"]
    for index, value in enumerate(values):
        dtype = {"int64": np.int64, "float32": np.float32}[value.dtype]
        program.set_input(index, np.zeros(value.shape, dtype))
    frozen = next(index for index, value in enumerate(values) if value.role == "frozen")
    (tmp_path / "short").write_bytes(b"\0" * 2)
    with (tmp_path / "short").open("rb") as file:
        program.place_input(frozen, 0)
        program.read_before(frozen, [0], file.fileno(), 0)
        with pytest.raises(RuntimeError, match=r"grow-block2\.pte: its weights cannot be read: they end early"):
            program.execute()


def test_an_input_may_be_read_only_and_is_kept_alive(program: _native.Program, shapes: list[tuple[int, ...]]) -> None:
    hyperparameters = np.full(shapes[1], 0.1, np.float32)
    hyperparameters.flags.writeable = False
    program.set_input(0, np.zeros(shapes[0], np.int64))
    program.set_input(1, hyperparameters)
    del hyperparameters
    total, prefix = program.execute()
    assert total > 0
    assert prefix == 0


def test_what_does_not_exist_is_named(program: _native.Program, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no such buffer"):
        program.buffer("no such buffer")
    with pytest.raises(IndexError):
        program.output(program.output_count)
    broken = tmp_path / "broken.pte"
    broken.write_bytes(b"not a program at all" * 100)
    for path in (broken, tmp_path / "missing.pte"):
        with pytest.raises(RuntimeError, match=str(path)):
            _native.Program(str(path), 1)


def test_threads_are_counted_in_the_workspace(cnn_bundle: Path) -> None:
    path = str(cnn_bundle / "programs" / "grow-block1.pte")
    assert _native.Program(path, 2).workspace_bytes == 2 * _native.workspace_bytes_per_thread()
    assert _native.Program(path, 1).workspace_bytes == _native.workspace_bytes_per_thread()
