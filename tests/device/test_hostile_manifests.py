"""What a manifest says of a program is compared with the program itself before anything is allocated for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_profiles.errors import FormatError
from edge_runtime.device import _native
from edge_runtime.device.prepare.bundle import open_bundle
from edge_runtime.device.prepare.job import bench_job
from edge_runtime.device.worker.loaded_program import LoadedProgram
from tests.support.device_commands import profl_edge

Program = dict[str, Any]


def _changed(bundle: Path, folder: Path, change: Callable[[Program], object], name: str = "grow-block2") -> Path:
    copy = folder / "hostile"
    shutil.copytree(bundle, copy)
    path = copy / "manifest.json"
    document = json.loads(path.read_bytes())
    change(next(program for program in document["programs"] if program["name"] == name))
    path.write_text(json.dumps(document))
    return copy


def _loaded(bundle: Path, name: str = "grow-block2") -> LoadedProgram:
    opened = open_bundle(bundle)
    job = bench_job(opened, opened.manifest.program(name), steps=1, warmup_steps=0, threads=1, json=True)
    return LoadedProgram(_native, job["program"], job)


def _read_anew(program: Program) -> dict[str, Any]:
    return next(value for value in program["inputs"] if value.get("read_before"))


def _input(program: Program, role: str) -> dict[str, Any]:
    return next(value for value in program["inputs"] if value["role"] == role)


def _half_arena(program: Program) -> None:
    memory = program["memory"]
    memory["arena_bytes"] //= 2
    memory["live_bytes"] = min(memory["live_bytes"], memory["arena_bytes"])
    for value in program["inputs"]:
        if value.get("arena_offset") is not None:
            value["arena_offset"] = 0


CONTRADICTIONS: dict[str, tuple[Callable[[Program], object], str]] = {
    "half the arena": (_half_arena, "its arena has"),
    "an arena more": (lambda p: p["memory"].update(arena_bytes=p["memory"]["arena_bytes"] + 64), "its arena has"),
    "more instructions": (lambda p: p.update(instructions=p["instructions"] + 1), "instructions, the manifest states"),
    "another size of the data": (lambda p: _input(p, "data").update(shape=[8, 3, 16, 16]), "not what the manifest"),
    "an input more": (lambda p: p["inputs"].remove(_input(p, "label")), "inputs|staging_bytes"),
}

NUMBERS = [0, -1, 2**31, 2**63, 2**64, -(2**63)]


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_manifest_that_contradicts_its_program_is_refused(what: str, cnn_bundle: Path, tmp_path: Path) -> None:
    change, message = CONTRADICTIONS[what]
    with pytest.raises(FormatError, match=message) as raised:
        _loaded(_changed(cnn_bundle, tmp_path, change))
    assert "\n" not in str(raised.value)


def test_frozen_weights_are_read_before_exactly_the_instructions_that_take_them(
    cnn_bundle: Path, tmp_path: Path
) -> None:
    names = [p.name for p in open_bundle(cnn_bundle).manifest.programs if any(i.read_before for i in p.inputs)]
    for name in names[:1]:
        _loaded(cnn_bundle, name)
        hostile = _changed(cnn_bundle, tmp_path, lambda p: _read_anew(p).update(read_before=[0, 1, 2]), name)
        with pytest.raises(FormatError, match="read before other instructions"):
            _loaded(hostile, name)
    assert names, "no program of the bundle reads a frozen tensor anew"


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["batch", "micro_batch", "instructions", "block"])
def test_a_number_that_is_no_count_is_one_line(field: str, number: int, cnn_bundle: Path, tmp_path: Path) -> None:
    hostile = _changed(cnn_bundle, tmp_path, lambda p: p.update({field: number}))
    with pytest.raises(FormatError) as raised:
        open_bundle(hostile)
    assert "\n" not in str(raised.value) and "manifest.json" in str(raised.value)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_size_that_is_none_is_one_line(number: int, cnn_bundle: Path, tmp_path: Path) -> None:
    hostile = _changed(cnn_bundle, tmp_path, lambda p: p["inputs"][1].update(shape=[number]))
    with pytest.raises(FormatError) as raised:
        open_bundle(hostile)
    assert "\n" not in str(raised.value)


def test_the_command_says_it_in_one_line(cnn_bundle: Path, tmp_path: Path) -> None:
    hostile = _changed(cnn_bundle, tmp_path, _half_arena)
    assert "its arena has" in profl_edge("bench", hostile, "--block", "2", "--steps", "1").refusal(2)


def test_a_check_that_a_signal_ends_says_a_line() -> None:
    supervisor = Path(_native.__file__).with_name("profl-supervise")
    crash = [sys.executable, "-c", "import os, sys; os.kill(os.getpid(), 11 if sys.argv[1:] == ['check'] else 9)"]
    done = subprocess.run([supervisor, "--check", "check", "--", *crash], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("profl-edge: error: the training process was ended by signal 11 (")
    assert len(done.stderr.splitlines()) == 1
